"""Benchmarks are read as their official repositories lay them out, subjects only."""

import json

import pytest

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation import benchmarks
from squeeze_core.evaluation.benchmarks import dreambench

from . import models as tiny


def test_dreambench_gives_each_subject_the_prompts_of_its_kind(dataset):
    benchmark = benchmarks.read("dreambench", dataset)
    assert [s.text for s in benchmark.of("dog6")] == ["a dog in the snow", "a dog wearing a red hat"]
    assert [s.text for s in benchmark.of("rc_car")] == ["a toy in the jungle", "a red toy", "a cube shaped toy"]
    assert {s.category for s in benchmark.of("dog6")} == {"live"}
    assert [len(benchmark.of(n)[0].subjects[0].references) for n in ("dog6", "rc_car", "vase")] == [2, 3, 1]
    assert benchmark.seeds == 4
    assert benchmarks.read("dreambench", dataset / "dataset").samples == benchmark.samples


def test_a_subject_without_pictures_is_left_out_and_said(tmp_path):
    data = tiny.dreambench(tmp_path)
    for path in (data / "dataset" / "vase").iterdir():
        path.unlink()
    benchmark = benchmarks.read("dreambench", data)
    assert benchmark.subjects == ["dog6", "rc_car"] and any('"vase"' in note for note in benchmark.notes)


@pytest.mark.parametrize("lost", ["Classes", "Object Prompts", "Live Subject Prompts"])
def test_a_file_without_one_of_its_lists_is_refused(lost):
    with pytest.raises(SqueezeError, match="git clone"):
        dreambench.parse(tiny.PROMPTS_AND_CLASSES.replace(lost, "Something else"))


@pytest.mark.parametrize("name", sorted(benchmarks.READERS))
def test_missing_or_empty_data_is_a_sentence(tmp_path, name):
    with pytest.raises(SqueezeError, match="nowhere"):
        benchmarks.read(name, tmp_path / "nowhere")
    with pytest.raises(SqueezeError):
        benchmarks.read(name, tmp_path)


def test_dreambench_plus_reads_animals_and_objects_only(tmp_path):
    for category in ("live_subject/animal", "live_subject/human", "object", "style"):
        for kind in ("images", "captions"):
            (tmp_path / "data" / kind / category).mkdir(parents=True)
        tiny.picture(0).save(tmp_path / "data" / "images" / category / "03.jpg")
        captions = "Polar bear\na polar bear on ice\n\na polar bear, painted\n"
        (tmp_path / "data" / "captions" / category / "03.txt").write_text(captions)
    (tmp_path / "data" / "captions" / "object" / "04.txt").write_text("Cup\na cup\n")
    benchmark = benchmarks.read("dreambench-plus", tmp_path)
    assert benchmark.subjects == ["animal_03_polar_bear", "object_03_polar_bear"]
    assert [s.text for s in benchmark.of("animal_03_polar_bear")] == [
        "a polar bear on ice",
        "a polar bear, painted",
    ]
    assert any("object/04.txt has no picture" in note for note in benchmark.notes)


def xverse_entry(path, word, prompt):
    source = {"image_path": path, "caption": f"a {word}"}
    adapter = {"type": "adapter", "src_inputs": [source], "use_words": [[0, word, word]]}
    return {"index": 0, "prompt": prompt, "modulation": [adapter]}


def test_xversebench_is_read_without_people(tmp_path):
    assets = tmp_path / "assets" / "XVerseBench"
    for name in ("animal/13_polar bear.jpg", "human/00_man.jpg", "object/01_cup.jpg"):
        (assets / name).parent.mkdir(parents=True)
        tiny.picture(0).save(assets / name)
    base = "assets/XVerseBench"
    entries = [
        xverse_entry(f"{base}/animal/13_polar bear.jpg", "polar bear", "a polar bear standing\n"),
        xverse_entry(f"{base}/human/00_man.jpg", "man", "a man"),
        xverse_entry(f"{base}/object/01_cup.jpg", "cup", "a cup"),
        xverse_entry(f"{base}/animal/13_polar bear.jpg", "polar bear", "a polar bear sleeping"),
        xverse_entry(f"{base}/object/09_gone.jpg", "hat", "a hat"),
        xverse_entry("../../etc/passwd", "hat", "a hat"),
        {"prompt": "nothing else"},
    ]
    (tmp_path / "eval" / "tools").mkdir(parents=True)
    (tmp_path / "eval" / "tools" / "XVerseBench_single.json").write_text(json.dumps(entries))
    benchmark = benchmarks.read("xversebench", tmp_path)
    assert [(s.subject, s.prompt, s.text) for s in benchmark.samples] == [
        ("animal_13_polar_bear", 0, "a polar bear standing"),
        ("object_01_cup", 0, "a cup"),
        ("animal_13_polar_bear", 1, "a polar bear sleeping"),
    ]
    assert benchmark.samples[0].subjects[0].words == "polar bear"
    assert [p.kind for p in benchmark.problems] == ["missing"] * 3


def test_lamicbench_is_read_without_people(tmp_path):
    def reference(path, words):
        return {"image_path": f"./dataset/images/{path}", "SAD": {"id": words, "desc": "keep appearance"}}

    for name in ("animal/12_dog.jpg", "object/28_backpack.jpg", "human/00_boy.jpg"):
        path = tmp_path / "dataset" / "images" / name
        path.parent.mkdir(parents=True)
        tiny.picture(0).save(path)
    entries = {
        "sample_000": {
            "prompt": "A boy and a dog.",
            "ref_img_1": reference("human/00_boy.jpg", "a boy"),
            "ref_img_2": reference("animal/12_dog.jpg", "a dog"),
        },
        "sample_001": {
            "prompt": "A dog with a backpack.",
            "ref_img_1": reference("animal/12_dog.jpg", "a dog"),
            "ref_img_2": reference("object/28_backpack.jpg", "a backpack"),
        },
        "sample_002": 7,
    }
    folder = tmp_path / "dataset" / "structured_inputs"
    folder.mkdir()
    (folder / "Two-Reference.json").write_text(json.dumps(entries))
    benchmark = benchmarks.read("lamicbench", tmp_path)
    assert [s.subject for s in benchmark.samples] == ["animal_12_dog__object_28_backpack"]
    assert [subject.words for subject in benchmark.samples[0].subjects] == ["dog", "backpack"]
    assert len(benchmark.samples[0].inputs) == 2 and len(benchmark.problems) == 1


def test_the_stress_set_has_both_kinds_for_every_subject(dataset):
    benchmark = benchmarks.read("stress", dataset)
    assert len(benchmark.samples) == 30
    kinds = [s.category for s in benchmark.of("dog6")]
    assert kinds == ["instances"] * 5 + ["attributes"] * 5
    assert all("dog" in s.text and "{" not in s.text for s in benchmark.of("dog6"))


def test_half_a_sign_in_a_prompt_is_replaced_and_cached_text_takes_any():
    from squeeze_core.evaluation.cache import Cache
    from squeeze_core.evaluation.cases import Sample

    cut = json.loads('"a cat \\ud83d"')
    assert Sample("cat", 0, cut, ()).text == "a cat \ufffd"
    assert Sample("cat", 0, "a cat \U0001f600", ()).text == "a cat \U0001f600"
    assert Cache(None).get("clip", cut) is None
