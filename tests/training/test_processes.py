"""Several processes on the CPU, started by torchrun, against one process with the same global batch.

Tolerance: the losses agree to a part in 100,000. Sums come in another order, so the last bits differ.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from squeeze_core.training.loop import Trainer

from .regression import Regression, settings
from .test_loop import lines, same, saved

SCRIPT = str(Path(__file__).with_name("regression.py"))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    run = tmp_path_factory.mktemp("single") / "run"
    Trainer(Regression(), settings(30, ema=0.9), run).run()
    return run


def losses(run):
    return [line["loss"] for line in lines(run)]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, program):
    """Two processes with FSDP2: in one go, and in two; the latter as it was after the first part, too."""
    folder = tmp_path_factory.mktemp("sharded")
    changes = json.dumps({"ema": 0.9, "sharding": "fsdp2", "sample_every": 20})
    for run, steps in (("whole", "30"), ("parts", "15"), ("parts", "30")):
        if steps == "30" and run == "parts":
            shutil.copytree(folder / "parts", folder / "first")
        done = program(SCRIPT, str(folder / run), steps, changes, "--resume", processes=2)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def check_same_but_for_rounding(run, single):
    assert losses(run) == pytest.approx(losses(single), rel=TOLERANCE)
    for group, tensors in saved(single).items():
        assert tensors.keys() == saved(run)[group].keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(saved(run)[group][name], tensor, rtol=1e-3, atol=1e-6)


def test_two_processes_with_ddp_give_the_curve_of_one(tmp_path, program, single):
    changes = json.dumps({"ema": 0.9, "micro_batch": 2, "sample_every": 20})  # accumulates, too
    done = program(SCRIPT, str(tmp_path / "run"), "30", changes, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    check_same_but_for_rounding(tmp_path / "run", single)


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
def test_two_processes_share_the_samples_without_being_told_to_use_the_cpu(tmp_path, program):
    """accelerate by itself leaves each alone with all of them: the same curve, at half the speed."""
    changes = json.dumps({"device": "auto"})
    done = program(SCRIPT, str(tmp_path / "run"), "10", changes, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("saw 40 samples") == 2


def test_three_processes_resumed_are_the_uninterrupted_ones_bit_for_bit(tmp_path, program):
    """Two add up the same in either order; of three, the order must be that of the first part's last step."""
    changes = json.dumps({"deterministic": True, "batch_size": 9})
    for run, steps in (("whole", "12"), ("parts", "5"), ("parts", "12")):
        done = program(SCRIPT, str(tmp_path / run), steps, changes, "--resume", processes=3)
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))


def test_two_processes_with_fsdp2_give_the_curve_of_one(sharded, single):
    check_same_but_for_rounding(sharded / "whole", single)


def test_a_sharded_run_resumed_is_the_uninterrupted_one_bit_for_bit(sharded):
    assert same(saved(sharded / "parts"), saved(sharded / "whole"))
    assert losses(sharded / "parts") == losses(sharded / "whole")


def test_a_sharded_checkpoint_is_gone_on_with_by_one_process(sharded, single):
    assert Trainer(Regression(), settings(30, ema=0.9), sharded / "first").run(resume=True).step == 30
    check_same_but_for_rounding(sharded / "first", single)


def test_each_of_two_processes_holds_half_of_the_sharded_weights(tmp_path, program):
    done = program(str(Path(__file__).with_name("sharded.py")), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("half") == 2
