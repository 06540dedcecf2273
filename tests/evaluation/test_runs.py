"""Generation for a benchmark: resumable, sharded, the same pictures in every batch size."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation import runs as generation
from squeeze_core.evaluation.generated_files import collect, file_name
from squeeze_core.evaluation.runs import claim, generate, identity, reading_ahead, with_pipeline
from squeeze_core.gate import Gate
from squeeze_core.generation import GenerationSettings
from squeeze_core.shard import Shard, parse_shard

from . import models as tiny


def drawing(calls, most=99):
    def draw(sample, seeds):
        if len(seeds) > most:
            raise RuntimeError("CUDA out of memory")
        calls.append((sample.subject, sample.prompt, tuple(seeds)))
        return [tiny.picture(1000 * sample.prompt + seed) for seed in seeds]

    return draw


def test_every_picture_is_made_under_its_name(tmp_path, benchmark_data):
    calls = []
    done = generate(benchmark_data, tmp_path, drawing(calls), {"steps": 2})
    assert (done.made, done.kept, done.batch) == (32, 0, 4) and len(calls) == 8
    generated, problems = collect(tmp_path, benchmark_data)
    assert len(generated) == 32 and problems == []


def test_a_second_start_makes_only_what_is_missing(tmp_path, benchmark_data):
    generate(benchmark_data, tmp_path, drawing([]), {})
    lost = [file_name(benchmark_data.samples[2], 1), file_name(benchmark_data.samples[5], 3)]
    for name in lost:
        (tmp_path / name).unlink()
    (tmp_path / "dog6" / ".00_0.123.png").write_bytes(b"half")  # what a killed process leaves
    calls = []
    done = generate(benchmark_data, tmp_path, drawing(calls), {})
    assert (done.made, done.kept) == (2, 30)
    assert [seeds for _, _, seeds in calls] == [(1,), (3,)]
    assert all((tmp_path / name).is_file() for name in lost)


def test_shards_share_all_pictures_and_none_is_made_twice(tmp_path, benchmark_data):
    made = []
    for i in (1, 2, 3):
        generate(benchmark_data, tmp_path, drawing(made), {}, Shard(i, 3))
    assert sorted(call[:2] for call in made) == sorted((s.subject, s.prompt) for s in benchmark_data.samples)
    assert len(collect(tmp_path, benchmark_data)[0]) == 32


def test_out_of_memory_halves_the_batch_for_good(tmp_path, benchmark_data):
    calls = []
    assert generate(benchmark_data, tmp_path, drawing(calls, most=1), {}).batch == 1
    assert len(calls) == 32
    with pytest.raises(RuntimeError, match="memory"):
        generate(benchmark_data, tmp_path / "b", drawing([], most=0), {})


def test_other_settings_are_refused_before_anything_is_made(tmp_path, benchmark_data):
    generate(benchmark_data, tmp_path, drawing([]), {"steps": 28})
    with pytest.raises(SqueezeError, match="steps = 28, and now it is 30"):
        generate(benchmark_data, tmp_path, drawing([]), {"steps": 30})
    generate(benchmark_data, tmp_path / "b", drawing([]), {"models": {"flux": "a", "dtype": "fp32"}})
    with pytest.raises(SqueezeError, match="flux = 'a', and now it is 'b'"):
        generate(benchmark_data, tmp_path / "b", drawing([]), {"models": {"flux": "b", "dtype": "fp32"}})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SqueezeError, match=r"run\.json"):
        generate(benchmark_data, tmp_path, drawing([]), {"steps": 28})


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "1/-2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(SqueezeError, match="shard"):
        parse_shard(text)


def test_a_shard_is_what_is_given_or_the_process_of_accelerate():
    assert parse_shard("2/4") == Shard(2, 4)
    assert parse_shard("", {}) == Shard(1, 1)
    assert parse_shard("", {"RANK": "3", "WORLD_SIZE": "8"}) == Shard(4, 8)


def test_pictures_drawn_together_are_those_drawn_alone_and_by_squeeze_generate(
    tmp_path, monkeypatch, benchmark_data
):
    from squeeze_core.pipeline import SqueezePipeline

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipeline = SqueezePipeline.from_toy_world(toyworld.load())
    settings = GenerationSettings(height=64, width=64, steps=2, long_side=48)
    sample = benchmark_data.samples[0]
    draw = with_pipeline(pipeline, settings, first_seed=7)
    together, alone = draw(sample, [0, 1]), draw(sample, [1])
    assert np.abs(np.asarray(together[1], int) - np.asarray(alone[0], int)).max() <= 1
    assert np.abs(np.asarray(together[0], int) - np.asarray(alone[0], int)).max() > 5
    reference = Image.open(sample.inputs[0]).convert("RGB")
    own = pipeline.generate(sample.text, [reference], GenerationSettings(64, 64, steps=2, long_side=48, seed=8))
    assert np.abs(np.asarray(own.images[0], int) - np.asarray(alone[0], int)).max() <= 1


def _another(name: str, value: object) -> object:
    choices = {"curve": "linear", "gate": Gate(0.5, 0.5), "fit": "pad", "placement": "uxo", "tiles": 2}
    choices |= {"text_layers": "0-9", "image_layers": "0-9", "system_prompt": "Say", "guidance": 3.0}
    return choices[name] if name in choices else value + 16


@pytest.mark.parametrize("name", [f.name for f in fields(GenerationSettings) if f.name not in ("seed", "batch")])
def test_a_run_goes_on_with_no_other_setting_of_its_pictures(tmp_path, benchmark_data, name):
    settings = GenerationSettings(gate=Gate())
    claim(tmp_path, benchmark_data, identity(settings))
    claim(tmp_path, benchmark_data, identity(replace(settings, seed=3, batch=2)))
    other = replace(settings, **{name: _another(name, getattr(settings, name))})
    with pytest.raises(SqueezeError, match=f"made with {name} = "):
        claim(tmp_path, benchmark_data, identity(other))


def test_a_run_of_version_0_1_0_goes_on_with_the_same_settings(tmp_path, benchmark_data):
    old = {"side": 128, "steps": 28, "curve": "cosine", "gate": [0.95, 0.85, "drop"]}
    old |= {"guidance": None, "true_cfg": 1.0, "benchmark": benchmark_data.name, "source": benchmark_data.source}
    (tmp_path / "run.json").write_text(json.dumps(old))
    settings = GenerationSettings(height=128, width=128, gate=Gate(), long_side=128)
    claim(tmp_path, benchmark_data, identity(settings))
    for changed in ({"width": 64}, {"text_layers": "0-9"}, {"steps": 4}):
        with pytest.raises(SqueezeError, match=next(iter(changed))):
            claim(tmp_path, benchmark_data, identity(replace(settings, **changed)))


def test_prompts_of_a_run_are_read_ahead_together_and_the_pictures_are_those_of_single_reads(
    tmp_path, benchmark_data, monkeypatch
):
    from squeeze_core.pipeline import SqueezePipeline

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline, alone = (SqueezePipeline.from_toy_world(toyworld.load()) for _ in range(2))
    settings = GenerationSettings(height=64, width=64, steps=1, long_side=48)
    reads = []
    encode_many = pipeline.mllm.encode_many
    monkeypatch.setattr(
        pipeline.mllm, "encode_many", lambda asked, **more: reads.append(len(asked)) or encode_many(asked, **more)
    )
    small = replace(benchmark_data, samples=benchmark_data.samples[:3], seeds=1)
    done = generate(
        small, tmp_path / "out", with_pipeline(pipeline, settings), {}, ahead=reading_ahead(pipeline, settings)
    )
    assert done.made == 3 and reads == [3]
    for sample in small.samples:
        expected = np.asarray(with_pipeline(alone, settings)(sample, [0])[0], int)
        found = np.asarray(Image.open(tmp_path / "out" / file_name(sample, 0)), int)
        assert np.abs(found - expected).max() <= 1


def test_a_picture_that_cannot_be_read_ahead_stops_its_own_sample_only(tmp_path, benchmark_data, monkeypatch):
    from squeeze_core.pipeline import SqueezePipeline

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline = SqueezePipeline.from_toy_world(toyworld.load())
    settings = GenerationSettings(height=64, width=64, steps=1, long_side=48)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    first, second = benchmark_data.samples[:2]
    second = replace(second, subjects=(replace(second.subjects[0], references=(broken,)),))
    small = replace(benchmark_data, samples=[first, second], seeds=1)
    with pytest.raises(SqueezeError, match=r"broken\.png"):
        generate(
            small, tmp_path / "out", with_pipeline(pipeline, settings), {}, ahead=reading_ahead(pipeline, settings)
        )
    assert (tmp_path / "out" / file_name(first, 0)).is_file()


def test_a_run_tells_what_it_was_made_with(tmp_path, benchmark_data):
    generate(benchmark_data, tmp_path, drawing([]), {"gate": [0.95, 0.85, "drop"]})
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["benchmark"] == "DreamBench" and run["gate"] == [0.95, 0.85, "drop"]
    assert generation.read_run(tmp_path) == run
