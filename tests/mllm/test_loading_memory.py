"""Loading costs the weights and hardly anything beside them."""

import sys

import pytest

from squeeze_core.bench.mllm_loading import measure


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured through /proc")
def test_loading_peaks_at_most_a_tenth_above_the_weights_also_as_fp8():
    numbers = measure()
    assert numbers["default_ratio"] <= 1.1
    assert numbers["fp8_e4m3fn_ratio"] <= 1.1
    assert numbers["fp8_e4m3fn_weight_bytes"] < 0.7 * numbers["default_weight_bytes"]
