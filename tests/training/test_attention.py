"""The attention kernels that a step may use, seen from inside it."""

import json

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from squeeze_core.errors import SqueezeError
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.loop import Trainer

from . import tiny
from .regression import Regression, settings
from .test_loop import same, saved


def enabled():
    cuda = torch.backends.cuda
    asked = {
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
    }
    return frozenset(name for name, on in asked.items() if on)


class Watched(Regression):
    """Notes what is enabled in the forward pass, in a checkpointed block run again, and in the backward pass."""

    def __init__(self):
        super().__init__()
        self.runs, self.backwards, self.sampled = [], [], []

    def loss(self, batch):
        def block(vectors):
            self.runs.append(enabled())
            return self.module(vectors)

        _, vectors = batch
        found = checkpoint(block, vectors.requires_grad_(), use_reentrant=False)
        found.register_hook(lambda gradient: self.backwards.append(enabled()))
        return (found - vectors.flip(-1).detach()).square().mean(), {}

    def sample(self, step):
        self.sampled.append(enabled())
        return {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, {"flash", "efficient", "math"}), ({"attention_kernels": ["math"]}, {"math"})],
)
def test_a_step_allows_the_named_kernels_forwards_backwards_and_when_blocks_run_again(tmp_path, changes, expected):
    before, task = enabled(), Watched()
    assert "cudnn" in before, "PyTorch has it on by itself, which is what this is about"
    Trainer(task, settings(2, sample_every=2, **changes), tmp_path / "run").run()
    assert task.runs == [expected] * 4 and task.backwards == [expected] * 2
    assert enabled() == before and task.sampled == [before]
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert set(record["attention_kernels"]) == expected


def test_flux_itself_runs_under_them(models, uno, tmp_path):
    config = parse_config(tiny.config_values(models, uno, steps=1, gradient_checkpointing=True))
    task, seen = squeeze_task(config), []
    for block in task.shard_units():
        block.register_forward_pre_hook(lambda module, args: seen.append(enabled()))
    Trainer(task, config, tmp_path / "run").run()
    assert seen and set(seen) == {frozenset({"flash", "efficient", "math"})}


@pytest.mark.parametrize("kernels", [["cudnn"], [], ["flash", "fast"]])
def test_other_kernels_are_refused(models, uno, kernels):
    with pytest.raises(SqueezeError, match="attention_kernels"):
        parse_config(tiny.config_values(models, uno, attention_kernels=kernels))


def test_a_resumed_run_is_the_uninterrupted_one_with_kernels_named(models, uno, tmp_path):
    def run(folder, steps):
        config = parse_config(tiny.config_values(models, uno, steps=steps, attention_kernels=["math"]))
        Trainer(squeeze_task(config), config, tmp_path / folder).run(resume=True)

    run("whole", 4)
    run("parts", 2)
    run("parts", 4)
    assert same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))
