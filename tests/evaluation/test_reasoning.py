"""The reasoning benchmark: built as appendix G says, read back whole, scored like a direct CLIP call."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.benchmarks import read, reasoning
from squeeze_core.evaluation.cache import Cache
from squeeze_core.evaluation.cases import Benchmark, Sample, Subject
from squeeze_core.evaluation.generated_files import collect
from squeeze_core.evaluation.measures.reasoning import GATED, MLLM_ONLY, score
from squeeze_core.vision.backbones import load_clip

from . import models

LIVE = {"cat": "cat", "cat2": "cat", "dog": "dog", "dog6": "dog", "rabbit": "rabbit"}
PROMPTS = ("a {} wearing a red hat", "a {} in a chef outfit", "a {} on the beach", "a {} wearing pink glasses")


def picture(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 64)).save(path)
    return path


@pytest.fixture(scope="module")
def dreambench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dreambench")
    samples = []
    for number, (name, words) in enumerate({**LIVE, "mug": "mug"}.items()):
        subject = Subject(name, words, (picture(folder / name / "00.png", number),))
        kind = "object" if name == "mug" else "live"
        samples += [Sample(name, n, text.format(words), (subject,), kind) for n, text in enumerate(PROMPTS)]
    return Benchmark("DreamBench", samples)


@pytest.fixture(scope="module")
def composites(dreambench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("composites")
    for number, sample in enumerate(dreambench.samples):
        if sample.subject not in ("rabbit", "mug"):
            picture(folder / sample.subject / f"{sample.prompt:02d}_0.png", 100 + number)
    return collect(folder, dreambench)[0]


@pytest.fixture(scope="module")
def built(composites, dreambench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning") / "benchmark"
    reasoning.build(composites, dreambench, folder, one=40, two=18)
    return folder


@pytest.mark.parametrize(
    ("prompt", "old", "new", "expected"),
    [
        ("a cat wearing a shirt", "cat", "elephant", "an elephant wearing a shirt"),
        ("A cat wearing a shirt", "cat", "elephant", "An elephant wearing a shirt"),
        ("an elephant in a hat", "elephant", "dog", "a dog in a hat"),
        ("a cat", "cat", "unicorn", "a unicorn"),
        ("a cat", "cat", "owl", "an owl"),
        ("the cat on a mat", "cat", "owl", "the owl on a mat"),
        ("a red cat and a cat", "cat", "owl", "a red owl and a cat"),
        ("a stuffed  animal in snow", "stuffed animal", "ox", "an ox in snow"),
        ("a caterpillar and a cat", "cat", "dog", "a caterpillar and a dog"),
        ("a dog", "cat", "owl", None),
        ("a dog", "", "owl", None),
        ("a c.t", "c.t", "dog", "a dog"),
        ("a cot", "c.t", "dog", None),
    ],
)
def test_the_category_is_replaced_with_its_article(prompt, old, new, expected):
    assert reasoning.replace_category(prompt, old, new) == expected


@given(st.text(max_size=40), st.text(max_size=8), st.text(max_size=8))
def test_no_prompt_breaks_the_replacement(prompt, old, new):
    result = reasoning.replace_category(prompt, old, new)
    assert result is None or new in result


@given(st.sampled_from(["cat", "toy"]), st.sampled_from(reasoning.CATEGORIES), st.text("xyz .", max_size=20))
def test_what_stands_around_the_category_stays(old, new, rest):
    assert reasoning.replace_category(f"{rest} {old} {rest}", old, new) == f"{rest} {new} {rest}"


def test_samples_are_as_many_as_asked_for_different_and_use_composites_evenly(built):
    entries = reasoning.parse(built / "samples.json")
    assert Counter(entry.kind for entry in entries) == {"one": 40, "two": 18}
    assert len({(e.kind, e.composite, e.category, e.reference) for e in entries}) == 58
    for kind in ("one", "two"):
        uses = Counter(entry.composite for entry in entries if entry.kind == kind)
        assert len(uses) == 12 and max(uses.values()) - min(uses.values()) <= 1  # 4 subjects x 3 accessories


def test_each_prompt_asks_for_the_accessory_on_somebody_else(built):
    for entry in reasoning.parse(built / "samples.json"):
        owner = LIVE[entry.composite_subject]
        assert entry.category != owner and not re.search(rf"\b{owner}\b", entry.prompt)
        accessory = reasoning.ACCESSORY.search(entry.original_prompt)
        assert accessory and entry.prompt.endswith(entry.original_prompt[accessory.start() :])
        assert re.match(rf"an? {entry.category} ", entry.prompt)


def test_two_references_are_the_composite_and_a_picture_of_who_the_prompt_names(built, dreambench):
    originals = {sample.subject: sample.inputs[0].read_bytes() for sample in dreambench.samples}
    seen = set()
    for sample in read("reasoning", built).samples:
        assert len(sample.subjects) == {"one": 1, "two": 2}[sample.category]
        if sample.category == "two":
            category = sample.subjects[1].words
            (name,) = [n for n, data in originals.items() if data == sample.subjects[1].references[0].read_bytes()]
            assert LIVE[name] == category and category in sample.text
            seen.add(name)
    assert seen == set(LIVE)  # live subjects, no mug


def test_the_same_input_and_seed_build_the_same_benchmark(built, composites, dreambench, tmp_path):
    same = reasoning.build(list(reversed(composites)), dreambench, tmp_path / "same", one=40, two=18)
    assert same.read_text() == (built / "samples.json").read_text()
    other = reasoning.build(composites, dreambench, tmp_path / "other", one=40, two=18, seed=1)
    assert other.read_text() != same.read_text()
    assert list((tmp_path / "same").glob("review_*.jpg"))


def test_too_few_composites_say_how_many_samples_they_give(composites, dreambench, tmp_path):
    with pytest.raises(SqueezeError, match=r'500 samples of the kind "one".* 12 composites give 192'):
        reasoning.build(composites, dreambench, tmp_path / "x", one=500)
    beach = [picture for picture in composites if "beach" in picture.sample.text]
    with pytest.raises(SqueezeError, match="accessory"):
        reasoning.build(beach, dreambench, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_deleting_a_sample_by_hand_leaves_the_rest_readable_and_a_lost_picture_is_named(built, tmp_path):
    entries = json.loads((built / "samples.json").read_text())
    for name in ("composites", "references"):
        (tmp_path / name).symlink_to(built / name)
    (tmp_path / "samples.json").write_text(json.dumps(entries[3:]))
    assert len(read("reasoning", tmp_path).samples) == 55
    entries[0]["composite"] = "composites/lost.png"
    (tmp_path / "samples.json").write_text(json.dumps(entries))
    with pytest.raises(SqueezeError, match=r"lost\.png"):
        read("reasoning", tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*reasoning.Entry.model_fields]), inner, max_size=7)
        ),
        max_leaves=12,
    )
)
def test_whatever_samples_json_holds_it_is_read_or_refused_with_a_sentence(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "samples.json"
    path.write_text(json.dumps(value))
    try:
        assert reasoning.parse(path)
    except SqueezeError as error:
        assert str(error).endswith((".", "build"))


def test_clip_t_equals_a_direct_call_of_transformers(built, tmp_path):
    folder = models.clip(tmp_path / "clip")
    benchmark = read("reasoning", built)
    for number, sample in enumerate(benchmark.samples):
        picture(tmp_path / "run" / sample.subject / f"{sample.prompt:02d}_0.png", 1000 + number)
    generated, problems = collect(tmp_path / "run", benchmark)
    assert not problems and len(generated) == 58
    result = score(generated, benchmark, load_clip(folder), Cache())
    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(folder)
        if hasattr(transformers, "CLIPImageProcessorPil")
        else transformers.CLIPImageProcessor.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    by_key = {(p.sample.subject, p.sample.prompt, p.seed): p for p in generated}
    expected = []
    for row in result.pictures:
        made = by_key[row.key]
        inputs = processor(
            text=[made.sample.text], images=[Image.open(made.path)], return_tensors="pt", padding=True
        )
        with torch.no_grad():
            out = model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds).item()
        assert row.score("clip_t") == pytest.approx(cosine, abs=1e-5)
        expected.append((made.sample.category, cosine))
    assert result.mean("clip_t") == pytest.approx(np.mean([value for _, value in expected]), abs=1e-5)
    assert np.std([value for _, value in expected]) > 0.01  # the check could fail
    for kind in ("one", "two"):
        part = result.settings["by references"][kind]
        assert part["clip_t"] == pytest.approx(np.mean([v for k, v in expected if k == kind]), abs=1e-5)
    assert (result.label, result.table) == (MLLM_ONLY, "3")
    assert score(generated, benchmark, load_clip(folder), Cache(), label=GATED).label == GATED
