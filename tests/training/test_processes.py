"""Several processes on the CPU, started by torchrun, against one process with the same global batch.

Tolerance: the losses agree to a part in 100,000. Sums come in another order, so the last bits differ.
"""

import json
from pathlib import Path

import pytest
import torch

from .test_loop import lines, same, saved

SCRIPT = str(Path(__file__).with_name("regression.py"))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    from squeeze_core.training.loop import Trainer

    from .regression import Regression, settings

    run = tmp_path_factory.mktemp("single") / "run"
    Trainer(Regression(), settings(30, ema=0.9), run).run()
    return run


def losses(run):
    return [line["loss"] for line in lines(run)]


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_give_the_curve_of_one(tmp_path, python, single, sharding):
    """Also with accumulation, and through a checkpoint: written by two, read by two."""
    run, changes = (
        tmp_path / "run",
        json.dumps({"ema": 0.9, "sharding": sharding, "micro_batch": 2, "sample_every": 20}),
    )
    for steps in ("20", "30"):
        done = python(SCRIPT, str(run), steps, changes, "--resume", processes=2)
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == pytest.approx(losses(single), rel=TOLERANCE)
    for group, tensors in saved(single).items():
        assert tensors.keys() == saved(run)[group].keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(saved(run)[group][name], tensor, rtol=1e-3, atol=1e-6)


def test_a_sharded_checkpoint_is_gone_on_with_by_one_process(tmp_path, python, single):
    run, changes = tmp_path / "run", {"ema": 0.9}
    done = python(SCRIPT, str(run), "20", json.dumps({**changes, "sharding": "fsdp2"}), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    done = python(SCRIPT, str(run), "30", json.dumps(changes), "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == pytest.approx(losses(single), rel=TOLERANCE)


def test_a_sharded_run_resumed_is_the_uninterrupted_one_bit_for_bit(tmp_path, python):
    for run, parts in (("whole", ["20"]), ("halves", ["10", "20"])):
        for steps in parts:
            changes = json.dumps({"sharding": "fsdp2", "ema": 0.9})
            done = python(SCRIPT, str(tmp_path / run), steps, changes, "--resume", processes=2)
            assert done.returncode == 0, done.stderr[-3000:]
    assert same(saved(tmp_path / "halves"), saved(tmp_path / "whole"))


def test_each_of_two_processes_holds_half_of_the_sharded_weights(tmp_path, python):
    done = python(str(Path(__file__).with_name("sharded.py")), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("half") == 2
