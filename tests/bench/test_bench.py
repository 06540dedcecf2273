"""`squeeze bench`: it measures what it says. No test here depends on how fast this machine is."""

import json

import pytest
import torch
from typer.testing import CliRunner

from squeeze_core.bench import attention, dla, encode, gate, importing, measuring, report
from squeeze_core.cli import app
from squeeze_core.errors import SqueezeError

CPU = torch.device("cpu")
KB = 1024


def test_peak_memory_counts_what_lives_at_one_time_and_not_what_was_freed():
    def one_after_another():
        for _ in range(10):
            torch.ones(256 * KB).add_(1)

    def all_at_once():
        return [torch.ones(256 * KB) for _ in range(10)]

    one = 4 * 256 * KB
    assert measuring.peak_bytes(one_after_another, CPU) == one
    assert measuring.peak_bytes(all_at_once, CPU) == 10 * one


def test_peak_memory_counts_a_view_once_and_what_was_there_before_not_at_all():
    before = torch.ones(256 * KB)
    assert measuring.peak_bytes(lambda: before.view(-1, 2).t()[0].mul_(1), CPU) == 0
    assert measuring.peak_bytes(lambda: [torch.ones(KB).view(2, -1).t()], CPU) == 4 * KB


def test_runs_are_interleaved_and_a_ratio_is_to_the_baseline_of_its_round():
    order = []
    clock = iter(range(1000))
    work = {"slow": 30, "fast": 10}

    def run(name):
        def body():
            order.append(name)
            end = measuring.time.process_time() + work[name] / 1000
            while measuring.time.process_time() < end:
                next(clock, None)

        return body

    seconds, ratios = measuring.compared({name: run(name) for name in work}, "slow", 4, CPU)
    assert order == ["slow", "fast"] + ["slow", "fast", "fast", "slow"] * 2
    assert ratios["slow"] == 1 and 0 < ratios["fast"] < 1 and seconds["fast"] < seconds["slow"]


def test_measuring_leaves_the_number_of_threads_and_gradients_as_they_were():
    threads = torch.get_num_threads()
    measuring.compared({"x": lambda: None}, "x", 1, CPU)
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


def test_the_dla_part_tells_the_two_forms_apart():
    numbers = dla.measure(tokens=3, hidden=256, layers=5, quick=True)
    assert (numbers["folded_value_rows"], numbers["plain_value_rows"]) == (1, 5)
    assert 0 < numbers["relative_difference"] < 1e-5
    assert numbers["heads"] == 2 and numbers["time_ratio"] > 0
    assert numbers["folded_peak_bytes"] <= numbers["plain_peak_bytes"]


def test_the_encode_part_counts_layers_that_run_again():
    numbers = encode.measure(quick=True)
    assert numbers["first_runs"] > 50
    assert {name: value for name, value in numbers.items() if name.endswith("_runs") and value} == {
        "first_runs": numbers["first_runs"]
    }


def test_the_encode_part_would_notice_work_done_again():
    linear = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with encode._calls(linear) as calls:
        linear(torch.zeros(1, 2))
        assert calls == ["", "0"]
    linear(torch.zeros(1, 2))
    assert len(calls) == 2


def test_the_gate_part_gives_every_stage_its_own_tokens(monkeypatch):
    """What FLUX is given, not how long it takes: a context and a sequence for each of the runs."""
    seen = {}

    def compared(runs, baseline, repeats, device):
        assert baseline == "plain"
        from diffusers import FluxTransformer2DModel

        for name, run in runs.items():
            sizes = []

            def forward(self, hidden_states, encoder_hidden_states, sizes=sizes, **rest):
                sizes.append((encoder_hidden_states.shape[1], hidden_states.shape[1]))
                return (hidden_states,)

            monkeypatch.setattr(FluxTransformer2DModel, "forward", forward)
            run()
            (seen[name],) = sizes
        return dict.fromkeys(runs, 1.0), dict.fromkeys(runs, 1.0)

    monkeypatch.setattr(gate, "compared", compared)
    monkeypatch.setattr(gate, "default_device", lambda: CPU)
    numbers = gate.measure(quick=True)
    picture, references = numbers["picture_tokens"], numbers["reference_tokens"]
    assert seen == {
        "plain": (512, picture),
        "no_references": (512, picture),
        "early": (512, picture),
        "middle": (512, picture + references),
        "late_drop": (1, picture + references),
        "late_zero": (512, picture + references),
    }


def test_the_attention_parts_compare_the_same_step_under_other_rules(monkeypatch):
    """What attention computes, not how long it takes: pairs of queries and keys, and how many calls add a bias."""
    seen = {}

    def compared(runs, baseline, repeats, device):
        assert baseline == "plain"
        from torch.nn import functional

        plain = functional.scaled_dot_product_attention
        for name, run in runs.items():
            calls = []

            def counted(*given, calls=calls, **more):
                q, k = given[:2] or (more["query"], more["key"])
                calls.append((q.shape[2] * k.shape[2], more.get("attn_mask") is not None))
                return plain(*given, **more)

            monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
            with torch.no_grad():
                run()
            seen.setdefault(name, (sum(pairs for pairs, _ in calls) / 2, sum(biased for _, biased in calls) / 2))
        monkeypatch.setattr(functional, "scaled_dot_product_attention", plain)
        return dict.fromkeys(runs, 1.0), dict.fromkeys(runs, 1.0)

    monkeypatch.setattr(attention, "compared", compared)
    monkeypatch.setattr(attention, "default_device", lambda: CPU)
    sizes = attention.Sizes(128, 64, 16)  # 64 picture tokens, 4 x 16 of references
    attention.references(quick=True, sizes=sizes)
    attention.layout(quick=True, sizes=sizes)
    tokens = 16 + 64 + 64
    quarters = 80 * tokens + 64 * (16 + 64 + 16)  # words and references see all, picture tokens one reference
    apart = 64 * (4 + 64 + 16) + (16 + 64) * (4 + 16 + 16)
    assert seen == {
        "plain": (tokens**2, 0),
        "strength": (tokens**2, 1),
        "region": (quarters, 0),
        "grey_region": (tokens**2, 1),
        "layout": (apart, 0),
    }


def test_importing_the_core_loads_no_heavy_library():
    numbers = importing.measure(quick=True)
    assert numbers["heavy_modules"] == 0 and numbers["added_s"] > 0


def test_every_limit_has_a_meaning_and_belongs_to_a_part():
    assert set(report.LIMITS) == set(report.PARTS)
    for limits in report.LIMITS.values():
        assert limits.keys() <= report.MEANINGS.keys()


def test_the_table_holds_every_number_that_has_a_meaning_with_its_limit():
    told = report.Report({}, {"dla": {"time_ratio": 0.5, "tokens": 3, "memory_ratio": 0.9}})
    assert [(part, value, limit) for part, _, value, limit in told.rows()] == [
        ("dla", 0.5, 0.65),
        ("dla", 0.9, None),
    ]


def test_an_unknown_part_is_refused_before_anything_is_measured():
    with pytest.raises(SqueezeError, match="encode, dla, gate, references, layout, import"):
        report.run(["dla", "speed"])


def test_the_command_writes_all_numbers_with_what_they_were_measured_on(tmp_path, monkeypatch):
    monkeypatch.setattr(dla, "measure", lambda quick: {"time_ratio": 0.7, "tokens": 3})
    out = tmp_path / "deep" / "bench.json"
    result = CliRunner().invoke(app(), ["bench", "dla", "--quick", "--json", str(out)])
    assert result.exit_code == 0
    assert "over" in result.stdout  # 0.7 is above the promised 0.65
    told = json.loads(out.read_text())
    assert told["parts"] == {"dla": {"time_ratio": 0.7, "tokens": 3}}
    assert told["limits"]["dla"]["time_ratio"] == 0.65
    assert {"device", "cpu", "torch", "clock"} <= told["hardware"].keys()
    assert list(out.parent.iterdir()) == [out]
