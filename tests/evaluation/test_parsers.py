"""Whatever a file holds or a name says, it is understood, reported or refused with a sentence: never a crash."""

import contextlib
import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation import cases as samples
from squeeze_core.evaluation import generated_files as naming
from squeeze_core.evaluation import report
from squeeze_core.evaluation.benchmarks import dreambench, dreambench_plus, entries, lamic, xverse
from squeeze_core.evaluation.cases import Sample, Subject
from squeeze_core.evaluation.measures.pose import azimuth_difference
from squeeze_core.shard import Shard, parse_shard
from squeeze_core.vision.registry import STANDARD, deviates

lenient = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@lenient
@given(st.integers(0, 999), st.integers(0, 10**6), st.text(min_size=1, max_size=30))
def test_what_generation_names_is_read_back(prompt, seed, text):
    subject = samples.folder_name(text)
    sample = Sample(subject, prompt, "a thing", (Subject(subject, "thing", (Path("a.png"),)),))
    assert naming.parse(naming.file_name(sample, seed)) == (subject, prompt, seed)
    assert PurePosixPath(subject).name == subject and subject not in ("", ".", "..")


@lenient
@given(st.text(max_size=40))
@example("dog/²_0.png")
@example("dog/٣_0.png")
def test_any_name_is_a_case_or_none(name):
    found = naming.parse(name)
    assert found is None or (found[0] and found[1] >= 0 and found[2] >= 0)


@lenient
@given(
    st.lists(st.dictionaries(st.sampled_from(["file", "subject", "prompt", "text", "seed"]), anything), max_size=4)
)
def test_any_manifest_entry_is_a_case_or_a_problem(tmp_path, benchmark_data, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SqueezeError):  # no picture lies there, so that nothing can be scored
        naming.collect(tmp_path, benchmark_data)


@lenient
@given(st.binary(max_size=60))
def test_any_bytes_are_a_manifest_or_refused(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with contextlib.suppress(SqueezeError):
        naming.read_manifest(tmp_path / "manifest.json")


@lenient
@given(st.text(max_size=200))
def test_any_text_is_a_list_of_prompts_or_refused(text):
    try:
        known = dreambench.parse(text)
    except SqueezeError:
        return
    assert all(known.prompts(subject) for subject in known.classes)


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@lenient
@given(st.dictionaries(words, words, min_size=1, max_size=4), st.lists(words, min_size=1, max_size=4))
def test_prompts_and_classes_are_read_as_written(classes, ends):
    rows = "\n".join(f"{name},{kind}" for name, kind in classes.items())
    prompts = "\n".join(f"'a {{0}} {{1}} with {end}'.format(unique_token, class_token)," for end in ends)
    text = f"Classes\n\nsubject_name,class\n{rows}\n\nPrompts\n\n"
    for kind in ("Object Prompts", "Live Subject Prompts"):
        text += f"{kind}\n\nprompt_list = [\n{prompts}\n]\n\n"
    known = dreambench.parse(text)
    assert known.classes == classes
    for name, kind in classes.items():
        assert list(known.prompts(name)) == [f"a {kind} with {end}" for end in ends]


@lenient
@given(st.text(max_size=100))
def test_any_caption_file_gives_a_subject_and_prompts(text):
    subject, prompts = dreambench_plus.parse(text)
    assert isinstance(subject, str) and all(prompts)


@lenient
@given(anything)
@example({"": [None]})
@example([{"modulation": [{"src_inputs": [{"image_path": 1}], "use_words": ["ab"]}], "prompt": None}])
@example({"a": {"prompt": 1, "ref_img_1": {"image_path": None, "SAD": {"id": 3}}}})
def test_any_json_is_a_benchmark_or_refused(tmp_path, data):
    for reader in (xverse, lamic):
        (tmp_path / reader.LIST).write_text(json.dumps(data))
        with pytest.raises(SqueezeError):
            reader.read(tmp_path)


@lenient
@given(st.text(max_size=40))
@example("../../etc/passwd")
@example("/etc/passwd")
@example("a\0b")
@example("a" * 5000)
def test_no_list_reaches_out_of_its_repository(tmp_path, name):
    found = entries.picture(tmp_path / "list.json", name)
    assert found is None or ".." not in found.parts


@lenient
@given(st.text(max_size=12))
def test_any_text_is_a_shard_or_refused(text):
    try:
        shard = parse_shard(text, {})
    except SqueezeError:
        return
    assert 1 <= shard.index <= shard.count


@lenient
@given(st.integers(1, 9), st.integers(0, 40))
def test_shards_part_any_list(count, length):
    items = list(range(length))
    parts = [Shard(i, count).part(items) for i in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@lenient
@given(st.integers(0, 359), st.integers(0, 359), st.integers(-720, 720))
def test_azimuth_differences_are_a_circles(a, b, turn):
    away = azimuth_difference(a, b)
    assert 0 <= away <= 180 and away == azimuth_difference(b, a)
    assert azimuth_difference(a + turn, b + turn) == away


@lenient
@given(st.binary(max_size=80))
def test_any_bytes_are_a_report_or_refused(tmp_path, data):
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(SqueezeError):
        report.read(tmp_path / "report.json")


@pytest.mark.parametrize("role", sorted(STANDARD))
def test_other_backbones_than_the_published_ones_are_told(role):
    spec = {"role": role, "name": "mine", "architecture": dict(STANDARD[role])}
    assert deviates(spec) == ""
    assert "do not compare" in deviates({**spec, "architecture": {**STANDARD[role], "width": 8}})
