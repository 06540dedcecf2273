import json

import pytest
import torch
from typer.testing import CliRunner

from squeeze_core.bench import training as benchmark
from squeeze_core.bench.random_tasks import random_task, ready
from squeeze_core.cli import app
from squeeze_core.training.attention import allowed

CPU = torch.device("cpu")


def encoded(task, indices):
    return [ready(task, sample) for sample in task.batch(indices)]


def test_it_measures_and_writes_what_it_found(tmp_path):
    out = tmp_path / "folder" / "step.json"
    rows = benchmark.main(
        ["--size", "tiny", "--batch", "1", "2", "--repeats", "1", "--out", str(out), "--peak", "1"]
    )
    assert json.loads(out.read_text()) == rows and [row["batch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["seconds"] > 0 and row["model_tflop"] > 0 and row["mfu"] >= 0
        assert row["samples_per_second"] == pytest.approx(row["batch"] / row["seconds"], rel=0.01)


@pytest.mark.parametrize("setting", [True, 1])
def test_what_checkpointing_computes_again_is_not_counted(setting):
    plain = random_task("tiny", 2, CPU, gradient_checkpointing=False)
    again = random_task("tiny", 2, CPU, gradient_checkpointing=setting)
    batch = encoded(plain, range(2))
    assert benchmark._flops(again, batch) == benchmark._flops(plain, batch)


def test_padding_is_not_counted():
    each, few = (random_task("tiny", 2, CPU, calls=calls) for calls in ("each", "few"))
    batch = encoded(each, range(4))
    assert benchmark._flops(few, batch) == benchmark._flops(each, batch)


def test_stage_0_is_measured_with_its_teacher():
    row = benchmark.rows([benchmark.Variant(batch=2)], "tiny", 0, CPU, repeats=1, said=lambda row: None)[0]
    assert set(row["parts"]) == {"mllm", "dla", "teacher", "flux forward", "backward", "optimizer"}
    assert "failed" not in row and row["model_tflop"] > 0


def test_the_parts_of_a_step_are_most_of_it_and_do_not_overlap():
    task = random_task("tiny", 2, CPU)
    row = benchmark.measure(task, 2, 1, CPU)
    assert set(row["parts"]) == {"mllm", "dla", "flux forward", "backward", "optimizer"}
    assert sum(part["seconds"] for part in row["parts"].values()) <= row["seconds"] + 0.001
    assert all(part["seconds"] >= 0 for part in row["parts"].values())


def test_a_row_that_fails_says_how_and_the_next_goes_on(tmp_path, monkeypatch):
    measure = benchmark.measure

    def failing(task, *rest):
        if task.config.calls == "mask":
            raise RuntimeError("an illegal memory access")
        return measure(task, *rest)

    monkeypatch.setattr(benchmark, "measure", failing)
    variants = [benchmark.Variant(1, calls) for calls in ("mask", "few")]
    out = tmp_path / "rows.json"
    first, second = benchmark.rows(variants, "tiny", 2, CPU, repeats=1, out=out, said=lambda row: None)
    assert first["failed"] == "RuntimeError: an illegal memory access" and second["seconds"] > 0
    assert json.loads(out.read_text()) == [first, second]


def test_the_series_is_one_command_and_takes_the_trainings_own_settings(tmp_path):
    out = tmp_path / "steps.json"
    command = ["bench", "train", "--size", "tiny", "--batch", "1", "--series", "--repeats", "1", "--json", str(out)]
    result = CliRunner().invoke(app(), command)
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())
    assert len(rows) == len(benchmark.SERIES) and rows[3]["calls"] == "few"
    assert all("seconds" in row or "failed" in row for row in rows)
    assert all("failed" not in row for row in rows if not row["compile"] and row["base"] == "as_is")


def test_reference_tokens_cost_what_they_weigh():
    one, two = (random_task("tiny", stage, CPU, calls="each") for stage in (1, 2))
    samples = [encoded(task, [index]) for task in (one, two) for index in range(4)]
    flops = [benchmark._flops(task, batch) for task, batch in zip([one] * 4 + [two] * 4, samples)]
    assert sum(flops[4:]) > 1.05 * sum(flops[:4])


def test_attention_of_grouped_queries_is_counted_as_by_hand():
    """6 query heads share 2 key and value heads: 5 queries on 7 keys, 16 wide for scores and for values."""
    query, key, value = torch.ones(3, 6, 5, 16), torch.ones(3, 2, 7, 16), torch.ones(3, 2, 7, 16)
    by_hand = 3 * 6 * (5 * 7 * 16 * 2 + 5 * 16 * 7 * 2)
    for kernel in (["flash"], ["math"]):
        with allowed(kernel), benchmark.counted_flops() as counter:
            torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        assert counter.get_total_flops() == by_hand
    shapes = [tuple(each.shape) for each in (query, key, value)]
    assert benchmark._attention_flops(*shapes, 0.0, False, out_shape=None) == by_hand
