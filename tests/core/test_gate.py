"""Equation 5: every float32 sigma belongs to exactly one stage."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from squeeze_core.errors import SqueezeError
from squeeze_core.gate import MAX_TAU, Gate, Stage

EDGES = [0.0, 5e-324, 1e-45, 1.4e-45, 1e-38, 0.85, 0.95, 1.0, 1.0000001, 1.1, math.nextafter(1.0, 2)]
taus = st.one_of(st.sampled_from(EDGES), st.floats(0, MAX_TAU))
gates = st.one_of(
    st.tuples(taus, taus).map(lambda pair: Gate(max(pair), min(pair))), taus.map(lambda tau: Gate(tau, tau))
)


def around(value: float) -> list[float]:
    """The float32 at a value, and its neighbours on both sides."""
    at = np.float32(value)
    return [float(x) for x in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf)))]


def sigma_of(gate: Gate) -> st.SearchStrategy[float]:
    near = [*around(gate.tau_1), *around(gate.tau_2), *around(0), *around(1), math.inf, -math.inf, -0.0]
    return st.one_of(st.sampled_from(near), st.floats(width=32, allow_nan=False))


@given(st.data(), gates)
def test_every_sigma_falls_in_exactly_one_interval_and_it_is_its_stage(data, gate):
    sigma = data.draw(sigma_of(gate))
    assert [interval.stage for interval in gate.intervals() if sigma in interval] == [gate.stage(sigma)]


@given(st.data(), gates)
def test_hosts_with_both_ends_inclusive_find_exactly_one_interval(data, gate):
    sigma = data.draw(sigma_of(gate))
    assert sum(interval.first <= sigma <= interval.last for interval in gate.intervals()) == 1


@given(gates)
def test_each_threshold_itself_belongs_to_the_stage_above_it(gate):
    below, at, _ = around(gate.tau_1)
    assert gate.stage(at) is Stage.EARLY
    assert gate.stage(below) is not Stage.EARLY
    below, at, _ = around(gate.tau_2)
    assert gate.stage(at) is not Stage.LATE
    assert gate.stage(below) is Stage.LATE


@given(gates)
def test_an_interval_is_empty_exactly_when_no_float_lies_in_it(gate):
    for interval in gate.intervals():
        assert interval.empty == (interval.first > interval.last)


@given(gates, st.floats(allow_nan=False) | st.floats(0.8, 1.0))
@example(Gate(0.95, 0.85), 0.95 - 3e-8)  # nearer to float32(0.95) than to the float32 below
def test_a_sigma_in_double_precision_is_compared_as_samplers_keep_it(gate, sigma):
    with np.errstate(over="ignore"):
        assert gate.stage(sigma) is gate.stage(float(np.float32(sigma)))
    assert Gate(0.95, 0.85).stage(0.95) is Stage.EARLY  # float32(0.95) < 0.95
    assert Gate(0.95, 0.85).stage(float(np.float32(0.95))) is Stage.EARLY


@given(gates.filter(lambda gate: np.float32(gate.tau_1) > 1))
@example(Gate(1.0000001, 0.85))
@example(Gate(1.1, 1.1))
def test_a_threshold_above_one_is_never_reached_by_the_first_step(gate):
    assert gate.stage(1.0) is not Stage.EARLY


def test_a_threshold_of_one_still_gives_the_first_step_to_the_mllm():
    gate = Gate(1.0, 1.0)
    assert gate.stage(1.0) is Stage.EARLY
    assert gate.stage(around(1.0)[0]) is Stage.LATE


def test_the_ends_of_the_scale_are_mllm_only_and_vae_only():
    assert {Gate(0, 0).stage(s) for s in (0.0, -0.0, 0.5, 1.0, 80.0)} == {Stage.EARLY}
    assert {Gate(1.1, 1.1).stage(s) for s in (0.0, 0.5, 1.0)} == {Stage.LATE}


def test_stages_speak_as_equation_5_says():
    assert [(stage.mllm, stage.vae) for stage in Stage] == [(True, False), (True, True), (False, True)]


@pytest.mark.parametrize("tau", [-1e-9, 1.1000001, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["tau_1", "tau_2"])
def test_a_threshold_outside_0_to_1_1_is_refused_by_name(tau, name):
    with pytest.raises(SqueezeError, match=rf"{name} is .*0 to 1\.1"):
        Gate(**{"tau_1": 1.1, "tau_2": 0.0, name: tau})


def test_thresholds_in_the_wrong_order_are_refused_with_both_values():
    with pytest.raises(SqueezeError, match=r"0\.2.*0\.7"):
        Gate(0.2, 0.7)


def test_an_unknown_late_mode_is_refused_with_the_known_ones():
    with pytest.raises(SqueezeError, match="drop, zero, keep"):
        Gate(late="mute")  # type: ignore[arg-type]


def test_nan_has_no_stage():
    with pytest.raises(SqueezeError, match="NaN"):
        Gate().stage(math.nan)
    assert not any(math.nan in interval for interval in Gate().intervals())
