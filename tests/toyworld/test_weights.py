"""How the toy world's weights are made and shipped: part after part, from earlier ones, for every row."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.toyworld import measures, mllm, scenes, vae
from squeeze_core.toyworld.examples import ToyExamples
from squeeze_core.toyworld.making import beginning, run, table
from squeeze_core.toyworld.reading import read
from squeeze_core.training.config_files import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every part, two steps each."""
    out = tmp_path_factory.mktemp("made")
    changes = ("steps=2", "batch_size=2", "workers=0", "device=cpu", "tensorboard=false")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "CAPTIONS", 40)
        for part in run.ORDER:
            run.train_part(
                part,
                out,
                changes=(*changes, "pool=16", "twin_pool=16", "trio_pool=16") if part == "flux" else changes,
            )
    return out


def test_all_parts_make_a_trained_toy_world_of_at_most_24_megabytes(made):
    weights = [made / "weights" / f"{part}.safetensors" for part in (*toyworld.world.PARTS, "text")]
    assert sum(path.stat().st_size for path in weights) <= 24e6
    assert toyworld.is_whole(made / "weights")
    world = toyworld.load(made / "world")
    assert json.loads((made / "world" / "manifest.json").read_text())["trained"] is True
    world.adapter.config.check_mllm(world.mllm.identity)
    assert world.vae.config.norm_num_groups == vae.TRAINED_CONFIG["norm_num_groups"]


def test_weights_that_are_shipped_are_what_everyone_builds(made, tmp_path, monkeypatch):
    monkeypatch.setattr(toyworld.world, "SHIPPED", made / "weights")
    built = toyworld.build(tmp_path / "everyone")
    assert toyworld.load(built.folder).trained
    other = toyworld.build(tmp_path / "seeded", seed=1)  # of random weights there are as many as seeds
    assert json.loads((other.folder / "manifest.json").read_text())["trained"] is False


def test_what_is_shipped_is_what_was_trained(made):
    name = "transformer_blocks.0.attn.to_q.weight"
    checkpoint = next((made / "flux" / "checkpoints").glob("step_*"))
    trained = load_file(checkpoint / "weights.safetensors")[f"transformer.{name}"]
    shipped = load_file(made / "weights" / "flux.safetensors")[name]
    assert shipped.dtype == torch.bfloat16 and torch.equal(shipped, trained.bfloat16())
    assert torch.equal(
        load_file(made / "world" / "flux" / "diffusion_pytorch_model.safetensors")[name], shipped.float()
    )


def test_weights_say_which_config_and_command_made_them(made):
    record = json.loads((made / "weights" / "made_by.json").read_text())
    assert list(record)[:5] == list(run.ORDER)
    for part, entry in record.items():
        assert part in entry["command"] and entry["config"]["steps"] <= 2
        assert str(made) not in json.dumps(entry)


def test_rows_of_the_table_have_adapters_of_their_own(made):
    """Fig. 3(b) among them: which layers a single LAP listens to, for text and for pictures."""
    changes = ("steps=1", "batch_size=2", "workers=0", "device=cpu", "tensorboard=false")
    for part in ("table6_last_layer", "fig3b_picture"):
        run.train_part(part, made, changes=changes)
    assert table.layer_importance(made, "fig3b_text") is None
    given = table.layer_importance(made, "fig3b_picture", pairs=2)
    assert len(given) == mllm.LAYERS + 1 and min(given) >= 0 and abs(sum(given) - 1) < 1e-6


def test_an_ablation_begins_from_what_is_shipped_alone(made, tmp_path, monkeypatch):
    monkeypatch.setattr(toyworld.world, "SHIPPED", made / "weights")
    monkeypatch.setattr(beginning, "CAPTIONS", 5)
    changes = ("steps=1", "batch_size=2", "workers=0", "device=cpu", "tensorboard=false")
    run.train_part("table6_last_layer", tmp_path, changes=changes)
    assert (tmp_path / "weights" / "table6_last_layer.safetensors").is_file()
    (made / "weights" / "text.safetensors").rename(tmp_path / "text")
    try:
        with pytest.raises(SqueezeError, match="train --only flux first"):
            run.train_part("table6_last_layer", tmp_path / "other", changes=changes)
    finally:
        (tmp_path / "text").rename(made / "weights" / "text.safetensors")


def test_a_part_that_is_done_is_not_done_again(made):
    before = (made / "vae" / "log.jsonl").read_bytes()
    result = run.train_part("vae", made, changes=("steps=2", "batch_size=2", "device=cpu"))
    assert result.step == 2 and (made / "vae" / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("part", ["mllm", "flux"])
def test_a_part_may_begin_with_earlier_weights(made, tmp_path, part):
    steps = ("steps=1", "batch_size=2", "workers=0", "device=cpu", "tensorboard=false", "learning_rate=1e-9")
    for name in ("vae", "mllm", "flux", "text"):
        (tmp_path / "weights").mkdir(exist_ok=True)
        shutil.copy(made / "weights" / f"{name}.safetensors", tmp_path / "weights")
    pool = ("pool=16", "twin_pool=16", "trio_pool=16") if part == "flux" else ()
    run.train_part(part, tmp_path, changes=(*steps, *pool, f"init={made / 'weights'}"))
    before, after = (toyworld.world.trained_state(folder / "weights", part) for folder in (made, tmp_path))
    # FLUX's modulations are folded into a basis that is found anew; all else is as it was.
    found = [name for name in before if "norm" in name and name.endswith("linear.weight")] if part == "flux" else []
    for name in before:
        assert torch.allclose(before[name], after[name], atol=2e-3 if name in found else 1e-6), name
    assert str(made) not in (tmp_path / "weights" / "made_by.json").read_text()
    with pytest.raises(SqueezeError, match="to begin with"):
        run.train_part("vae", tmp_path, changes=(*steps, f"init={tmp_path}"))


def test_a_part_whose_models_are_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toyworld.world, "SHIPPED", tmp_path / "none")
    with pytest.raises(SqueezeError, match="train --only vae first"):
        run.train_part("flux", tmp_path)


@pytest.mark.parametrize("part", ["stage2", "table7_two_stages"])
def test_stage_2_without_stage_1_is_refused(tmp_path, part):
    with pytest.raises(SqueezeError, match="train --only stage1 first"):
        run.train_part(part, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SqueezeError, match="no part"):
        run.train_part("unet", tmp_path)


def test_a_wrong_key_of_a_toy_config_is_named(tmp_path):
    with pytest.raises(SqueezeError, match="stepz"):
        run.train_part("vae", tmp_path, changes=("stepz=3",))


def test_toy_examples_are_the_worlds_pairs():
    examples = ToyExamples(seed=3, count=10, kinds={"several": 1.0})
    assert len(examples) == 10
    pair, example = examples.pair(4), examples[4]
    assert example.prompt == pair.prompt and len(example.references) == 2
    assert np.array_equal(np.asarray(example.target), scenes.render(pair.target))
    assert examples.identity() != ToyExamples(seed=4, count=10, kinds={"several": 1.0}).identity()
    told = ToyExamples(seed=3, count=10, says="caption")[4]
    assert "toy" not in told.prompt and len(told.references) == 1
    same = ToyExamples(seed=3, count=10, says="same")[4]
    assert same.references == (same.target,) and same.prompt != told.prompt
    with pytest.raises(SqueezeError, match="split"):
        ToyExamples(split="dev")
    with pytest.raises(SqueezeError, match="above 0"):
        ToyExamples(kinds={"one": 0.0})


@torch.no_grad()
def test_the_shipped_vae_gives_pictures_back_so_that_they_read_as_before():
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**vae.TRAINED_CONFIG).eval()
    shipped = load_file(toyworld.SHIPPED / "vae.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in shipped.items()})
    options = scenes.WorldOptions(split="test", carrying=0, styles=scenes.PHOTOS)
    latents, right, errors = [], [], []
    for index in range(20):
        one = scenes.single(7, index, options)
        pixels = torch.from_numpy(scenes.render(one.scene)).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents.append(model.encode(pixels).latent_dist.mode())
        decoded = model.decode(latents[-1]).sample.clamp(-1, 1)
        errors.append(float((decoded - pixels).abs().mean()) / 2)
        reading = read(((decoded[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        order = measures.matched(reading.subjects, [subject.identity for subject in one.scene.subjects])
        right += [measures.identity_share(f, s.identity) for f, s in zip(order, one.scene.subjects)]
    scaled = (torch.cat(latents) - vae.CONFIG["shift_factor"]) * vae.CONFIG["scaling_factor"]
    assert np.mean(errors) < 0.02 and np.mean(right) > 0.95
    assert 0.9 < scaled.std() < 1.1


@pytest.mark.parametrize("stage", run.STAGES)
def test_the_stages_configs_are_ordinary_ones(stage):
    config = load_config(run.CONFIGS / f"toy_{stage}.yaml", ("steps=3", "save_every=2", "batch_size=2", "seed=1"))
    assert config.vae_references == (stage == "stage2") and config.steps == 3


def test_two_processes_train_a_part_together(made, tmp_path):
    """Which is how two CPU cores train fastest. One of them writes the files."""
    shutil.copytree(made / "weights", tmp_path / "weights")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    changes = ["steps=2", "batch_size=2", "workers=0", "tensorboard=false"]
    options = ["squeeze_core.cli", "toyworld", "train", *changes, "--only", "stage1", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together, alone = (load_file(folder / "starts" / "dual.safetensors") for folder in (tmp_path, made))
    assert all(torch.equal(together[name], alone[name]) for name in alone)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "stage1" / "log.jsonl").read_text().splitlines()]
    expected = [json.loads(line)["loss"] for line in (made / "stage1" / "log.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert toyworld.is_complete(tmp_path / "world")
