import json

import pytest
import torch

from squeeze_core.bench import training as benchmark
from squeeze_core.training.attention import allowed

CPU = torch.device("cpu")


def encoded(task, indices):
    return [benchmark._encoded(task, sample) for sample in task.batch(indices)]


def test_it_measures_and_writes_what_it_found(tmp_path):
    out = tmp_path / "folder" / "step.json"
    rows = benchmark.main(
        ["--size", "tiny", "--batch", "1", "2", "--repeats", "1", "--out", str(out), "--peak", "1"]
    )
    assert json.loads(out.read_text()) == rows and [row["batch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["seconds"] > 0 and row["model_tflop"] > 0 and row["mfu"] >= 0
        assert row["samples_per_second"] == pytest.approx(row["batch"] / row["seconds"], rel=0.01)


def test_what_checkpointing_computes_again_is_not_counted():
    task = benchmark.random_task("tiny", 2, "group", CPU)
    batch = encoded(task, range(2))
    with_checkpoints = benchmark._flops(task, batch)
    task.module.transformer.disable_gradient_checkpointing()
    task.config = task.config.model_copy(update={"gradient_checkpointing": False})
    # The aggregator is computed again in both; it is small beside FLUX even here.
    assert benchmark._flops(task, batch) == pytest.approx(with_checkpoints, rel=0.1)


def test_reference_tokens_cost_what_they_weigh():
    one, two = (benchmark.random_task("tiny", stage, "each", CPU) for stage in (1, 2))
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
