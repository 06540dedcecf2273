"""`squeeze train` and `squeeze export` as programs, on one process and on two, stopped and killed."""

import signal
import time

import pytest
import yaml

from squeeze_core import adapter
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import load_config
from squeeze_core.training.loop import Trainer

from . import tiny
from .test_kill import killed_after
from .test_loop import lines, same, saved


@pytest.fixture
def config(tmp_path, models, uno):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny.config_values(models, uno)))
    return str(path)


def train_here(config, changes, run):
    """The same without a process of its own."""
    settings = load_config(config, changes)
    Trainer(squeeze_task(settings), settings, run).run()


CLI = ("-m", "squeeze_core.cli")


def test_train_then_export_gives_an_adapter(tmp_path, program, config):
    run, out = tmp_path / "run", tmp_path / "a.safetensors"
    done = program(*CLI, "train", config, "steps=2", "sample_every=2", "sampling.steps=1", "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run) and (run / "samples" / "step_00000002" / "0.png").is_file()
    again = program(*CLI, "train", config, "--out", str(run))
    assert again.returncode == 2 and "--resume" in again.stderr and "Traceback" not in again.stderr
    done = program(*CLI, "export", str(run), str(out), "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    assert "2 steps" in adapter.load(out).config.trained_by


def test_killed_and_resumed_it_ends_as_if_never_stopped(tmp_path, program, config):
    whole, run = tmp_path / "whole", tmp_path / "run"
    long = ("train", config, "steps=12", "save_every=1", "workers=2", f"latent_cache={tmp_path / 'latents'}")
    assert killed_after(program(*CLI, *long, "--out", str(run), "--resume", wait=False), run, 4, 0.1)
    assert 4 <= len(lines(run)) < 12
    done = program(*CLI, *long, "--out", str(run), "--resume")
    assert done.returncode == 0, done.stderr
    train_here(config, long[2:], whole)
    assert same(saved(run), saved(whole))


def test_ctrl_c_ends_with_130_and_everything_saved(tmp_path, program, config):
    run = tmp_path / "run"
    process = program(*CLI, "train", config, "steps=100000", "save_every=100000", "--out", str(run), wait=False)
    while not (run / "log.jsonl").is_file() or not (run / "log.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step_{len(lines(run)):08d}"]


@pytest.mark.parametrize("changes", [["calls=group"], ["calls=each", "sharding=fsdp2", "sample_every=3"]])
def test_two_processes_give_the_curve_of_one(tmp_path, program, config, changes):
    """DDP and FSDP2 on the method's own task; the losses agree to a part in 100,000."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    options = ("train", config, "sampling.steps=1", "sampling.count=1", *changes)
    train_here(config, [*options[2:], "sharding=none"], alone)
    done = program(*CLI, *options, "--out", str(both), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [x["loss"] for x in lines(both)] == pytest.approx([x["loss"] for x in lines(alone)], rel=1e-5)
    assert "sample_every=3" not in changes or (both / "samples" / "step_00000003" / "0.png").is_file()
