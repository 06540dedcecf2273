import json
import os
import signal
import subprocess
import sys
from itertools import count

import pytest
import torch
from safetensors import SafetensorError

from squeeze_core.errors import SqueezeError
from squeeze_core.training import checkpoint
from squeeze_core.training.checkpoint import Checkpoints, read_state, read_tensors
from squeeze_core.training.loop import Trainer
from squeeze_core.training.settings import LoopSettings
from squeeze_core.training.state import TrainedState

from .regression import Regression, settings


def lines(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def saved(run):
    newest = Checkpoints(run / "checkpoints").latest()
    return {group: read_tensors(newest, group) for group in ("weights", "optimizer", "ema")}


def same(a, b):
    return all(
        a[group].keys() == b[group].keys() and all(torch.equal(a[group][k], b[group][k]) for k in a[group])
        for group in a
    )


def test_it_learns_and_writes_a_line_a_step(tmp_path):
    result = Trainer(Regression(), settings(60), tmp_path / "run").run()
    log = lines(tmp_path / "run")
    assert result.step == 60 and not result.interrupted
    assert [line["step"] for line in log] == list(range(1, 61))
    assert [line["samples"] for line in log] == list(range(8, 481, 8))
    assert {"loss", "lr", "seconds", "samples_per_second", "peak_memory", "grad_norm", "size"} <= log[0].keys()
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert log[0]["peak_memory"] > 2**20
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 60


def test_the_first_step_is_that_of_torch_itself(tmp_path):
    task, reference = Regression(), Regression()
    Trainer(task, settings(1, weight_decay=0.1, clip=0.01), tmp_path / "run").run()
    optimizer = torch.optim.AdamW(reference.module.parameters(), 1e-2, weight_decay=0.1)
    reference.loss(reference.batch(range(8)))[0].backward()
    torch.nn.utils.clip_grad_norm_(reference.module.parameters(), 0.01)
    optimizer.step()
    for ours, theirs in zip(task.module.parameters(), reference.module.parameters()):
        assert torch.equal(ours, theirs)


def test_accumulation_is_the_same_as_a_whole_batch(tmp_path):
    whole, parts = Regression(), Regression()
    Trainer(whole, settings(10), tmp_path / "whole").run()
    Trainer(parts, settings(10, micro_batch=2), tmp_path / "parts").run()
    for a, b in zip(whole.module.parameters(), parts.module.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert parts.seen == whole.seen == list(range(80))


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_the_number_of_workers_changes_nothing(tmp_path, workers):
    one, other = Regression(), Regression()
    Trainer(one, settings(10), tmp_path / "one").run()
    Trainer(other, settings(10, workers=workers, micro_batch=4), tmp_path / "other").run()
    Trainer(again := Regression(), settings(10, workers=0, micro_batch=4), tmp_path / "again").run()
    assert same(saved(tmp_path / "other"), saved(tmp_path / "again"))
    assert sorted(other.seen) == sorted(again.seen) == one.seen


@pytest.mark.parametrize("changes", [{}, {"schedule": "cosine", "warmup": 3, "ema": 0.9}, {"dropout": 0.3}])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, changes):
    changes = dict(changes)
    dropout = changes.pop("dropout", 0.0)
    Trainer(Regression(dropout=dropout), settings(20, **changes), tmp_path / "whole").run()

    def stop(step, steps, loss):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    halves = tmp_path / "halves"
    result = Trainer(Regression(dropout=dropout), settings(20, **changes), halves, progress=stop).run()
    assert result.interrupted and result.step == 8
    task = Regression(dropout=dropout)
    assert Trainer(task, settings(20, **changes), halves).run(resume=True).step == 20
    assert min(task.seen) == 64
    assert same(saved(halves), saved(tmp_path / "whole"))
    numbers = [{k: line[k] for k in ("step", "loss", "lr", "samples", "grad_norm")} for line in lines(halves)]
    assert numbers == [{k: line[k] for k in numbers[0]} for line in lines(tmp_path / "whole")]


def test_ctrl_c_in_the_midst_of_a_step_gives_it_up_and_resuming_does_it_again(tmp_path):
    """torchrun kills after 30 seconds, and a step of many parts may take longer."""
    loop = {"micro_batch": 2}
    Trainer(Regression(), settings(20, **loop), tmp_path / "whole").run()

    def stop(step, steps, loss):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    halves = tmp_path / "halves"
    result = Trainer(Regression(), settings(20, **loop), halves, progress=stop).run()
    assert result.interrupted and result.step == 7
    task = Regression()
    assert Trainer(task, settings(20, **loop), halves).run(resume=True).step == 20
    assert min(task.seen) == 56 and [line["step"] for line in lines(halves)] == list(range(1, 21))
    assert same(saved(halves), saved(tmp_path / "whole"))


def test_weights_that_are_to_be_shared_by_one_process_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SqueezeError, match="this is the only one"):
        Trainer(Regression(), settings(5, sharding="fsdp2"), tmp_path / "run").run()
    assert not (tmp_path / "run").exists()


def test_resume_with_nothing_saved_starts_anew(tmp_path):
    result = Trainer(Regression(), settings(5), tmp_path / "run").run(resume=True)
    assert result.step == 5 and lines(tmp_path / "run")[0]["step"] == 1


def test_a_finished_run_resumed_stays_as_it_is(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    before = saved(tmp_path / "run")
    assert Trainer(Regression(), settings(5), tmp_path / "run").run(resume=True).step == 5
    assert same(saved(tmp_path / "run"), before) and len(lines(tmp_path / "run")) == 5


def test_an_existing_run_is_refused_without_resume(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    before = saved(tmp_path / "run")
    with pytest.raises(SqueezeError, match="--resume"):
        Trainer(Regression(), settings(5), tmp_path / "run").run()
    assert same(saved(tmp_path / "run"), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"seed": 1}, "seed"), ({"batch_size": 4}, "batch_size"), ({"learning_rate": 1}, "learning_rate")],
)
def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path, changes, said):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    with pytest.raises(SqueezeError, match=said):
        Trainer(Regression(), settings(9, **changes), tmp_path / "run").run(resume=True)


def test_more_steps_and_other_saving_may_be_asked_for_on_resuming(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    assert (
        Trainer(Regression(), settings(9, save_every=2, micro_batch=2), tmp_path / "run").run(resume=True).step == 9
    )


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_checkpoint(tmp_path):
    Trainer(Regression(), settings(10), tmp_path / "good").run()
    with pytest.raises(SqueezeError, match=r"nan at step 13.*step_00000010.*96 to 103"):
        Trainer(Regression(nan_at=100), settings(20), tmp_path / "run").run()
    assert same(saved(tmp_path / "run"), saved(tmp_path / "good"))
    assert lines(tmp_path / "run")[-1]["step"] == 12


@pytest.fixture
def interruptible():
    """A process in the background of a shell may have been started deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_twice_stops_at_once(tmp_path, interruptible):
    def stop(step, steps, loss):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trainer(Regression(), settings(20), tmp_path / "run", progress=stop).run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_average_follows_the_weights(tmp_path):
    task = Regression()
    Trainer(task, settings(1, ema=0.75), tmp_path / "one").run()
    first = Regression().module.state_dict()
    for name, value in saved(tmp_path / "one")["ema"].items():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * task.module.state_dict()[name])


def test_pictures_are_made_with_the_average_and_the_weights_come_back(tmp_path):
    task, shown = Regression(), []

    def weights():
        return {name: p.detach().clone() for name, p in task.module.named_parameters()}

    task.sample = lambda step: shown.append(weights()) or {}
    Trainer(task, settings(4, ema=0.5, sample_every=4), tmp_path / "run").run()
    kept = saved(tmp_path / "run")
    assert same({"w": shown[0]}, {"w": kept["ema"]}) and not same({"w": shown[0]}, {"w": kept["weights"]})
    assert same({"w": weights()}, {"w": kept["weights"]})


def test_pictures_and_tensorboard_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    Trainer(Regression(), settings(6, sample_every=3, tensorboard=True), tmp_path / "run").run()
    assert sorted(p.name for p in (tmp_path / "run" / "samples").iterdir()) == ["step_00000003", "step_00000006"]
    assert (tmp_path / "run" / "samples" / "step_00000003" / "grey.png").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert board.Images("grey")


def test_only_the_newest_checkpoints_stay(tmp_path):
    Trainer(Regression(), settings(20, keep=3, save_every=3), tmp_path / "run").run()
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step_00000015", "step_00000018", "step_00000020"]


def test_what_a_killed_process_was_writing_is_not_taken_for_a_checkpoint(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    folder = tmp_path / "run" / "checkpoints"
    (folder / ".step_00000009.abc").mkdir()
    (folder / ".step_00000009.abc" / "state.json").write_text("{")
    (folder / "step_00000099").mkdir()  # renamed by hand, with nothing in it
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    assert Trainer(Regression(), settings(6), tmp_path / "run").run(resume=True).step == 6
    assert not list(folder.glob(".step*"))
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_is_named(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    path = Checkpoints(tmp_path / "run" / "checkpoints").latest() / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SqueezeError, match=r"step_00000005.*cannot be read"):
        Trainer(Regression(), settings(6), tmp_path / "run").run(resume=True)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: (os error 28)")]
)
def test_a_full_disk_stops_with_the_last_good_checkpoint_intact(tmp_path, monkeypatch, error):
    Trainer(Regression(), settings(5), tmp_path / "good").run()
    write, calls = checkpoint.save_file, count()

    def full(tensors, path):
        write(tensors, path)
        if next(calls) == 3:  # the second file of the second checkpoint
            path.write_bytes(path.read_bytes()[:50])
            raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SqueezeError, match=r"full.*--resume.*step_00000005"):
        Trainer(Regression(), settings(20), tmp_path / "run").run()
    assert same(saved(tmp_path / "run"), saved(tmp_path / "good"))
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000005"]


def test_a_really_full_disk_stops_with_a_sentence(tmp_path):
    """On a file system of 60 kB; needs the right to mount one in a namespace of its own."""
    program = f'mount -t tmpfs -o size=60k none "{tmp_path}" && exec "$@"'
    script = os.path.join(os.path.dirname(__file__), "regression.py")
    arguments = [sys.executable, script, str(tmp_path / "run"), "400", '{"save_every": 1, "keep": 30, "ema": 0.9}']
    try:
        if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
            raise OSError
    except OSError:
        pytest.skip("no namespaces here")
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", program, "_", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode and "SqueezeError" in done.stderr and "--resume" in done.stderr, done.stderr[-2000:]
    assert "is full" in done.stderr and "step_" in done.stderr


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(SqueezeError, match="multiple of 12"):
        LoopSettings(steps=1, batch_size=16, micro_batch=4).batch_layout(3)


@pytest.mark.parametrize(("processes", "micro"), [(1, None), (1, 2), (2, None), (2, 4), (4, 2), (8, 1)])
def test_each_sample_of_a_step_is_taken_once_whatever_the_layout(processes, micro):
    layout = LoopSettings(steps=1, batch_size=16, micro_batch=micro).batch_layout(processes)
    taken = [
        i for part in range(layout.accumulation) for rank in range(processes) for i in layout.indices(3, part, rank)
    ]
    assert taken == list(range(48, 64))


def test_schedules():
    constant = LoopSettings(steps=10, batch_size=1, learning_rate=1.0, warmup=4)
    assert [constant.learning_rate_at(s) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = LoopSettings(steps=10, batch_size=1, learning_rate=1.0, schedule="cosine")
    assert cosine.learning_rate_at(0) == 1 and cosine.learning_rate_at(5) == pytest.approx(0.5)
    assert cosine.learning_rate_at(10) == pytest.approx(0)


@pytest.mark.parametrize("fused", [None, True])
def test_an_optimizer_restored_goes_on_as_the_one_that_was_saved(tmp_path, fused):
    def steps(task, optimizer, count):
        for step in count:
            task.loss(task.batch(range(step * 4, step * 4 + 4)))[0].backward()
            optimizer.step()
            optimizer.zero_grad()

    def begun():
        task = Regression()
        optimizer = torch.optim.AdamW(task.module.parameters(), 1e-2, fused=fused)
        return task, optimizer, TrainedState(task.module, optimizer, None)

    task, optimizer, state = begun()
    steps(task, optimizer, range(3))
    path = Checkpoints(tmp_path).write(3, state.gathered(), {})
    steps(task, optimizer, range(3, 6))
    other, again, restored = begun()
    restored.restore(path)
    steps(other, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(task.module.parameters(), other.module.parameters()))


def test_the_state_tells_where_the_run_is(tmp_path):
    Trainer(Regression(), settings(5), tmp_path / "run").run()
    state = read_state(Checkpoints(tmp_path / "run" / "checkpoints").latest())
    assert (state["step"], state["samples"]) == (5, 40) and state["identity"]["task"] == {"width": 32}
