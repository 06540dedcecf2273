"""Pictures of any tool find their cases: by name or by manifest."""

import json

import pytest

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.generated_files import collect, file_name, parse

from . import models as tiny


def put(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tiny.picture(number).save(folder / name)


def found(folder, benchmark):
    generated, problems = collect(folder, benchmark)
    return [(g.sample.subject, g.sample.prompt, g.seed) for g in generated], problems


def test_the_name_that_generation_writes_is_read_back(benchmark_data):
    for sample, seed in benchmark_data.cases():
        assert parse(file_name(sample, seed)) == (sample.subject, sample.prompt, seed)


@pytest.mark.parametrize("name", ["dog6/a_0.png", "dog6/1_.png", "00_0.png", "dog6/1_2_3.png", "dog6/-1_0.png"])
def test_other_names_are_none(name):
    assert parse(name) is None


def test_pictures_are_found_by_name_in_the_benchmarks_order(tmp_path, benchmark_data):
    put(tmp_path, "vase/01_0.png", "dog6/00_3.png", "dog6/00.jpg", "deeper/RC_CAR/2_7.png")
    cases, problems = found(tmp_path, benchmark_data)
    assert cases == [("dog6", 0, 0), ("dog6", 0, 3), ("rc_car", 2, 7), ("vase", 1, 0)]
    assert [p.kind for p in problems] == ["missing"]
    assert "3 of the 8 prompts" in problems[0].text and "dog6, prompt 1" in problems[0].text


def test_what_fits_no_case_is_reported_and_the_rest_scored(tmp_path, benchmark_data):
    put(tmp_path, "dog6/00_0.png", "dog6/09_0.png", "horse/00_0.png", "dog6/best.png")
    cases, problems = found(tmp_path, benchmark_data)
    assert cases == [("dog6", 0, 0)]
    told = {p.file: p.text for p in problems if p.kind == "unnamed"}
    assert set(told) == {"dog6/09_0.png", "horse/00_0.png", "dog6/best.png"}
    assert "0 to 1" in told["dog6/09_0.png"] and "does not have" in told["horse/00_0.png"]


def test_doubled_cases_are_reported_and_one_is_scored(tmp_path, benchmark_data):
    put(tmp_path, "dog6/00_0.jpg", "dog6/00_0.png", "dog6/0_0.png")
    cases, problems = found(tmp_path, benchmark_data)
    assert cases == [("dog6", 0, 0)]
    doubled = [p for p in problems if p.kind == "doubled"]
    assert [p.file for p in doubled] == ["dog6/00_0.png", "dog6/0_0.png"]
    assert all("dog6/00_0.jpg" in p.text and not p.scored for p in doubled)


def test_one_subjects_folder_can_be_given_alone(tmp_path, benchmark_data):
    put(tmp_path, "dog6/01_0.png")
    assert found(tmp_path / "dog6", benchmark_data)[0] == [("dog6", 1, 0)]


def test_nothing_that_fits_is_an_error_with_an_example(tmp_path, benchmark_data):
    put(tmp_path, "a.png")
    with pytest.raises(SqueezeError, match=r"dog6/00_0\.png"):
        collect(tmp_path, benchmark_data)


def test_a_manifest_names_cases_by_number_or_text(tmp_path, benchmark_data):
    put(tmp_path, "1.png", "2.png", "3.png")
    sample = benchmark_data.find("vase", 1)
    manifest = [
        {"file": "1.png", "subject": "dog6", "prompt": 1},
        {"file": "2.png", "subject": "vase", "text": sample.text.upper() + ".", "seed": 5},
        {"file": "gone.png", "subject": "vase", "prompt": 0},
        {"file": "3.png", "subject": "vase", "text": "a vase on the moon"},
        {"file": "3.png", "subject": "vase"},
        {"file": "3.png", "subject": "vase", "prompt": 0, "seed": "one"},
        {"subject": "vase", "prompt": 0},
        {"file": "x" * 5000, "subject": "vase", "prompt": 0},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    cases, problems = found(tmp_path, benchmark_data)
    assert cases == [("dog6", 1, 0), ("vase", 1, 5)]
    told = " ".join(p.text for p in problems)
    assert len(problems) == 7  # six entries, and the line about prompts without pictures
    for words in ("no such file", "'a vase on the moon'", 'neither "prompt" nor "text"', "'one'", 'no "file"'):
        assert words in told


@pytest.mark.parametrize("text", ["{", '"text"', "[1]", '{"pictures": 3}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, benchmark_data, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SqueezeError, match=r"manifest\.json"):
        collect(tmp_path, benchmark_data)


def test_an_entry_may_have_number_and_text_that_agree(tmp_path, benchmark_data):
    sample = benchmark_data.samples[3]
    put(tmp_path, "any.png")
    entry = {"file": "any.png", "subject": sample.subject, "prompt": sample.prompt, "text": sample.text, "seed": 1}
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": [entry]}))
    assert found(tmp_path, benchmark_data)[0] == [(sample.subject, sample.prompt, 1)]


def test_a_manifest_whose_number_and_text_disagree_is_a_problem_and_not_a_score(tmp_path, benchmark_data):
    first, second = benchmark_data.samples[:2]
    entries = [
        {"file": f"{number}.png", "subject": one.subject, "prompt": one.prompt, "text": text}
        for number, (one, text) in enumerate(((first, first.text), (second, "a text of another prompt")))
    ]
    for entry in entries:
        put(tmp_path, entry["file"])
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    scored, problems = collect(tmp_path, benchmark_data)
    assert [picture.path.name for picture in scored] == ["0.png"]
    assert any("a text of another prompt" in problem.text and not problem.scored for problem in problems)
