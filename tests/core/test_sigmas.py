"""Noise levels: exact ends, falling, and the step counts that the gate then gives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeeze_core.errors import SqueezeError
from squeeze_core.gate import Gate, Stage
from squeeze_core.sigmas import CURVES, at_size, flux_mu, shifted, sigmas


@given(st.sampled_from(CURVES), st.integers(1, 1000), st.floats(0, 3))
def test_a_schedule_falls_strictly_from_exactly_1_to_exactly_0(curve, steps, mu):
    levels = sigmas(curve, steps, mu=mu)
    assert levels.shape == (steps + 1,) and levels.dtype == torch.float32 and levels.device.type == "cpu"
    assert levels[0] == 1 and levels[-1] == 0
    assert (levels.diff() < 0).all()


@given(st.sampled_from(CURVES), st.integers(1, 200), st.floats(0.05, 1))
def test_denoise_takes_the_last_steps_of_a_longer_schedule(curve, steps, denoise):
    total = int(steps / denoise) if denoise < 1 else steps  # ComfyUI's BasicScheduler, to the letter
    assert torch.equal(sigmas(curve, steps, denoise=denoise), sigmas(curve, total)[-(steps + 1) :])


@pytest.mark.parametrize(
    "curve, counts",
    [("cosine", (6, 4, 18)), ("raised_cosine", (5, 3, 20)), ("flux", (4, 7, 17)), ("linear", (2, 3, 23))],
)
def test_28_steps_split_at_the_papers_thresholds_as_worked_out(curve, counts):
    stages = [Gate(0.95, 0.85).stage(float(sigma)) for sigma in sigmas(curve, 28)[:-1]]
    assert tuple(stages.count(stage) for stage in Stage) == counts


def test_curves_follow_their_formulas():
    for step, level in enumerate(sigmas("cosine", 10).tolist()):
        assert level == pytest.approx(math.cos(math.pi * step / 20), abs=1e-7)
    for step, level in enumerate(sigmas("raised_cosine", 10).tolist()):
        assert level == pytest.approx((1 + math.cos(math.pi * step / 10)) / 2, abs=1e-7)
    for step, level in enumerate(sigmas("flux", 10, mu=1.15).tolist()[:-1]):
        t = 1 - step / 10
        assert level == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 1 / t - 1), abs=1e-7)


def test_the_flux_curve_is_diffusers_schedule():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 28, 28).tolist(), mu=0.8)
    assert torch.allclose(sigmas("flux", 28, mu=0.8), scheduler.sigmas.to(torch.float32), atol=1e-6)


def test_the_shift_keeps_both_ends_and_mu_0_changes_nothing():
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    assert torch.equal(shifted(t, 0.0), t)
    assert shifted(t, 1.15)[0] == 0 and shifted(t, 1.15)[-1] == 1


def test_mu_is_flux_own_for_its_two_fixed_points():
    assert flux_mu(256) == 0.5 and flux_mu(4096) == pytest.approx(1.15)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"curve": "sine"}, "cosine, raised_cosine, flux, linear"),
        ({"steps": 0}, "at least 1"),
        ({"denoise": 0.0}, "above 0"),
        ({"denoise": 1.01}, "above 0"),
        ({"denoise": math.nan}, "above 0"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_accepted(options, message):
    with pytest.raises(SqueezeError, match=message):
        sigmas(**{"curve": "cosine", "steps": 4, **options})


def test_pictures_of_two_sizes_tell_as_much_at_the_level_of_each():
    """What tokens share, estimated from noisy ones: its error is the same where `at_size` says so."""
    generator = torch.Generator().manual_seed(0)

    def error(sigma: float, tokens: int) -> float:
        noisy = (1 - sigma) * 0.7 + sigma * torch.randn(4000, tokens, generator=generator)
        return float((noisy.mean(1) / (1 - sigma) - 0.7).square().mean().sqrt())

    assert error(at_size(0.85, 16, 256), 16) == pytest.approx(error(0.85, 256), rel=0.05)
    assert error(0.85, 16) > 3 * error(0.85, 256)


@given(st.floats(0, 1), st.integers(1, 10_000), st.integers(1, 10_000))
def test_another_size_and_back_is_the_same_level(sigma, tokens, given):
    assert at_size(at_size(sigma, tokens, given), given, tokens) == pytest.approx(sigma, abs=1e-9)
