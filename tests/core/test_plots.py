"""The pictures say what the gate and the layers do."""

import math

import pytest
import torch

from squeeze_core.dla import LayerWeights
from squeeze_core.gate import Gate, Stage
from squeeze_core.gate_rows import GateRow, gate_warnings, step_stages
from squeeze_core.plots import WIDTH, plot_gate, plot_layers
from squeeze_core.sigmas import sigmas

BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)


def rows(gate: Gate, references: int = 2) -> list[GateRow]:
    return [
        GateRow(r.stage.name.lower(), r.first, r.last, 512, r.stage.mllm, references if r.stage.vae else 0)
        for r in gate.intervals()
        if not r.empty
    ]


def pixels(picture, colour) -> int:
    near = (torch.tensor(list(picture.getdata())) - torch.tensor(colour)).abs().amax(-1) <= 2
    return int(near.sum())


def test_each_step_has_the_stage_that_the_gate_gives_it():
    gate, schedule = Gate(0.95, 0.85), sigmas("cosine", 28)
    stages = step_stages(schedule, rows(gate))
    assert stages == [gate.stage(float(sigma)) for sigma in schedule[:-1]]
    assert [stages.count(stage) for stage in Stage] == [6, 4, 18]


@pytest.mark.parametrize("gate", [Gate(), Gate(0, 0), Gate(1.1, 1.1), Gate(0.5, 0.5)])
@pytest.mark.parametrize("steps", [1, 4, 28, 300])
def test_any_gate_and_any_number_of_steps_can_be_drawn(gate, steps):
    picture = plot_gate(sigmas("flux", steps), rows(gate), ["a long warning " * 30])
    assert picture.width == WIDTH and picture.mode == "RGB"


def test_the_reference_lane_is_as_wide_as_the_steps_that_see_references():
    few = [GateRow("late", -math.inf, 0.25, 1, False, 1)]
    many = [GateRow("late", -math.inf, 0.75, 1, False, 1)]
    narrow, wide = (pixels(plot_gate(sigmas("linear", 20), entry), ORANGE) for entry in (few, many))
    assert 2 < wide / narrow < 3.2  # 15 steps against 5, but for the legend


def test_a_schedule_below_the_gate_warns_that_no_step_hears_the_mllm():
    entries = rows(Gate(0.95, 0.85))
    assert gate_warnings(sigmas("cosine", 28), entries) == []
    (warning,) = gate_warnings(sigmas("linear", 10, denoise=0.5), entries)
    assert warning.startswith("No step hears the MLLM")


def test_steps_without_any_entry_and_with_several_are_named():
    early = GateRow("early", 0.5, math.inf, 8)
    gap = gate_warnings(sigmas("linear", 4), [early])
    assert any("No entry is active at step 4" in line for line in gap)
    shared = gate_warnings(sigmas("linear", 4), [early, GateRow("all", -math.inf, math.inf, 8)])
    assert any("steps 1, 2 and 3" in line and "averaged" in line for line in shared)


def test_no_references_anywhere_are_no_reason_for_a_warning():
    assert gate_warnings(sigmas("cosine", 8), [GateRow("text", -math.inf, math.inf, 512)]) == []


@pytest.mark.parametrize("layers", [5, 29, 49, 81])
def test_bars_of_both_kinds_are_drawn_for_any_number_of_layers(layers):
    weights = torch.linspace(-0.1, 0.2, layers)
    picture = plot_layers(LayerWeights(weights, weights, weights, weights))
    assert picture.width == WIDTH
    bare = plot_layers(LayerWeights(None, None, None, None))
    for colour in (BLUE, ORANGE):
        assert pixels(picture, colour) > pixels(bare, colour) + 2000


def test_a_negative_weight_hangs_below_the_zero_line():
    weights = torch.zeros(5)
    weights[2] = -1.0
    picture = plot_layers(LayerWeights(weights, None, weights, None))
    x, y = 559 - 10, 132 + 100  # the middle of layer 2's first bar, in the upper panel: 0 at the top, -1 below
    assert picture.getpixel((x, y)) == BLUE
    weights[2] = 1.0
    picture = plot_layers(LayerWeights(weights, None, weights, None))
    assert picture.getpixel((x, y)) == BLUE  # 0 at the bottom now
    weights[2], weights[0] = 1.0, -1.0
    picture = plot_layers(LayerWeights(weights, None, weights, None))
    assert picture.getpixel((x, 132 + 40)) == BLUE
    assert picture.getpixel((x, 132 + 150)) != BLUE


def test_missing_modalities_and_flat_or_broken_weights_still_give_a_picture():
    direct = torch.full((29,), 1 / 29)
    for weights in (
        LayerWeights(direct, None, direct, direct),
        LayerWeights(None, None, direct, direct),
        LayerWeights(torch.zeros(29), torch.zeros(29), torch.zeros(29), torch.zeros(29)),
        LayerWeights(torch.full((29,), math.nan), direct, direct, direct),
    ):
        assert plot_layers(weights).getbbox() is not None


def test_the_empty_prompt_counts_as_silent():
    from squeeze_core.plots import _context_cell, _described

    row = GateRow("entry 3, the empty prompt", -math.inf, 0.85, 0, False, 2)
    assert _context_cell([row]) == (False, "no words", "-")
    assert _described(row) == "entry 3, the empty prompt, sigma below 0.85, 2 references"
