"""kill -9 at any moment, and --resume: the result is that of a run never stopped, bit for bit."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from squeeze_core.training.loop import Trainer

from .regression import Regression, settings
from .test_loop import lines, same, saved

SCRIPT = str(Path(__file__).with_name("regression.py"))


def killed_after(process, run, line_count, delay):
    """Kill -9 once the log has so many lines and a moment more. Returns whether it was still running."""
    deadline = time.monotonic() + 120
    log = run / "log.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if log.is_file() and log.read_bytes().count(b"\n") >= line_count:
            time.sleep(delay)
            break
        time.sleep(0.002)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def test_killed_again_and_again(tmp_path, program):
    """Saving at every step, so that most kills fall into the writing of a checkpoint."""
    steps, changes = 160, {"save_every": 1, "ema": 0.9, "schedule": "cosine", "dropout": 0.2, "workers": 2}
    whole, run = tmp_path / "whole", tmp_path / "run"
    loop = {name: value for name, value in changes.items() if name != "dropout"}
    Trainer(Regression(dropout=0.2), settings(steps, **loop), whole).run()
    rng, reached, kills = random.Random(0), 0, 0
    for _ in range(4):
        process = program(SCRIPT, str(run), str(steps), json.dumps(changes), "--resume", wait=False)
        kills += killed_after(process, run, reached + rng.randrange(10, 40), rng.random() / 50)
        reached = len(lines(run))
    assert kills >= 3 and reached < steps
    done = program(SCRIPT, str(run), str(steps), json.dumps(changes), "--resume")
    assert done.returncode == 0, done.stderr
    assert same(saved(run), saved(whole))
    assert [(x["step"], x["loss"]) for x in lines(run)] == [(x["step"], x["loss"]) for x in lines(whole)]


def test_killed_before_anything_was_saved(tmp_path, program):
    run, changes = tmp_path / "run", json.dumps({"save_every": 100000})
    assert killed_after(program(SCRIPT, str(run), "1000000", changes, wait=False), run, 5, 0)
    Trainer(Regression(), settings(5, save_every=100000), run).run(resume=True)
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_ends_with_130(tmp_path, program, number):
    run = tmp_path / "run"
    process = program(SCRIPT, str(run), "1000000", json.dumps({"save_every": 100000}), wait=False)
    while not (run / "log.jsonl").is_file() or len((run / "log.jsonl").read_bytes()) < 300:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    last = lines(run)[-1]["step"]
    assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step_{last:08d}"]
