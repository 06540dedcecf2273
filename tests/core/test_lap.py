"""LAP: the folded form is the plain one, and both are what the paper's words say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from squeeze_core import lap as lap_module
from squeeze_core.errors import SqueezeError
from squeeze_core.lap import HeadwiseLinear, LAPConfig, LayerwiseAttentionPooling

TOLERANCE = 1e-5  # relative, float32


def trained(hidden: int, layers: int, config: LAPConfig, seed: int = 0) -> LayerwiseAttentionPooling:
    """A LAP with every parameter away from its initial value, as training leaves it."""
    torch.manual_seed(seed)
    lap = LayerwiseAttentionPooling(hidden, layers, config)
    with torch.no_grad():
        for name, parameter in lap.named_parameters():
            scale = 1.0 if name.startswith("pool") else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + name.endswith("norm.weight"))
    return lap


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def rms(x, weight):
    return [v / math.sqrt(sum(u * u for u in x) / len(x) + 1e-6) * w for v, w in zip(x, weight)]


@torch.no_grad()
def by_hand(lap: LayerwiseAttentionPooling, states: torch.Tensor) -> torch.Tensor:
    """Section 3.2 read word by word: loops over tokens, blocks and heads, no batching, no einsum."""
    pooled = []
    for token in states:  # [layers, hidden]
        x = token if lap.down is None else token @ lap.down.weight.T
        for block in lap.blocks:
            attention = block.attention
            normed = torch.stack([torch.stack(rms(row, attention.norm.weight)) for row in x])
            if attention.layer_embedding is not None:
                normed = normed + attention.layer_embedding.weight
            size = x.shape[1] // attention.heads
            heads = []
            for head in range(attention.heads):
                rows = slice(head * size, (head + 1) * size)
                q, k, v = (
                    normed @ linear.weight[rows].T for linear in (attention.query, attention.key, attention.value)
                )
                heads.append(torch.softmax(q @ k.T / math.sqrt(size), dim=-1) @ v)
            x = x + torch.cat(heads, 1) @ attention.out.weight.T
            if block.mlp is not None:
                norm, first, _, second = block.mlp
                inner = torch.stack([torch.stack(rms(row, norm.weight)) for row in x]) @ first.weight.T
                x = x + torch.nn.functional.gelu(inner, approximate="tanh") @ second.weight.T
        weights = lap.pool.weight[0]
        vector = sum(w * row for w, row in zip(weights, x))
        if lap.up is not None:
            vector = sum(w * row for w, row in zip(weights, token)) + vector @ lap.up.weight.T
        pooled.append(vector)
    return torch.stack(pooled)


configs = st.builds(
    lambda heads, size, bottleneck, **rest: (
        LAPConfig(heads=heads, bottleneck=heads * size if bottleneck else None, **rest),
        heads * size,
    ),
    heads=st.integers(1, 4),
    size=st.integers(1, 9),
    bottleneck=st.booleans(),
    blocks=st.integers(1, 3),
    layer_embedding=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(configs, st.integers(1, 7), st.integers(1, 12), st.integers(0, 99))
def test_the_folded_form_equals_the_plain_one(config_width, tokens, layers, seed):
    config, width = config_width
    hidden = width if config.bottleneck is None else width + 3
    # In float64: of a width of 1 a sum may nearly cancel, and float32 leaves 1e-5 of it.
    lap = trained(hidden, layers, config, seed).double()
    states = torch.randn(tokens, layers, hidden, dtype=torch.float64) * 10
    plain, given_plain = lap(states, folded=False)
    folded, given_folded = lap(states, folded=True)
    assert relative(folded, plain) < 1e-12
    assert relative(given_folded, given_plain) < 1e-12


@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("bottleneck", [None, 8])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("extras", [{}, {"layer_embedding": True}])
def test_lap_is_the_papers_words_written_as_loops(mlp, bottleneck, blocks, extras):
    config = LAPConfig(heads=4, blocks=blocks, mlp=mlp, bottleneck=bottleneck, **extras)
    lap = trained(16, 6, config).double()
    states = torch.randn(3, 6, 16, dtype=torch.float64)
    assert relative(lap(states)[0], by_hand(lap, states)) < 1e-6  # RMSNorm computes in float32


def test_at_8b_widths_the_two_forms_still_agree():
    torch.manual_seed(0)
    lap = LayerwiseAttentionPooling(3584, 29)
    torch.nn.init.normal_(lap.blocks[0].attention.out.weight, std=3584**-0.5)
    torch.nn.init.normal_(lap.pool.weight)
    states = torch.randn(2, 29, 3584)
    with torch.no_grad():
        assert relative(lap(states, folded=True)[0], lap(states, folded=False)[0]) < TOLERANCE
    assert lap.blocks[0].attention.heads == 28


@pytest.mark.parametrize(
    "config",
    [LAPConfig(), LAPConfig(blocks=2, mlp=True), LAPConfig(bottleneck=8), LAPConfig(layer_embedding=True)],
)
def test_at_initialisation_it_is_the_mean_over_layers(config):
    states = torch.randn(5, 7, 16)
    pooled, _ = LayerwiseAttentionPooling(16, 7, config)(states)
    assert torch.allclose(pooled, states.mean(1), atol=1e-6)


def test_what_the_layers_give_sums_to_the_layer_weights():
    lap = trained(16, 7, LAPConfig(heads=4))
    given, total = lap(torch.randn(5, 7, 16))[1], lap.pool.weight.sum()
    assert torch.allclose(given.sum(1), total.expand(5), atol=1e-5)  # rows of attention sum to 1
    uniform = LayerwiseAttentionPooling(16, 7)
    torch.nn.init.zeros_(uniform.blocks[0].attention.query.weight)
    assert torch.allclose(uniform(torch.randn(5, 7, 16))[1], torch.full((5, 7), 1 / 7), atol=1e-6)


def test_the_folded_form_makes_no_value_for_every_layer():
    lap = trained(16, 7, LAPConfig(heads=4))
    rows = []
    lap.blocks[0].attention.value.register_forward_hook(
        lambda _, args, output: rows.append((args[0].shape, output.shape))
    )
    lap(torch.randn(5, 7, 16), folded=True)
    assert rows == [((5, 4, 16), (5, 16))]  # one mixed state a head and token
    rows.clear()
    lap(torch.randn(5, 7, 16), folded=False)
    assert rows == [((5 * 7, 16), (5 * 7, 16))]


@pytest.mark.parametrize("folded", [True, False])
def test_pooling_in_chunks_changes_nothing(monkeypatch, folded):
    lap = trained(16, 7, LAPConfig(heads=4, blocks=2))
    states = torch.randn(11, 7, 16)
    whole = lap(states, folded=folded)
    for chunk in (1, 3, 11):
        monkeypatch.setattr(lap_module, "TOKEN_CHUNK", chunk)
        for part, full in zip(lap(states, folded=folded), whole):
            assert relative(part, full) < 1e-6


def test_more_tokens_than_a_chunk_are_pooled_each_for_itself():
    lap = trained(8, 5, LAPConfig(heads=2))
    states = torch.randn(lap_module.TOKEN_CHUNK + 3, 5, 8)
    assert relative(lap(states)[0][-3:], lap(states[-3:])[0]) < 1e-6


@pytest.mark.parametrize("config", [LAPConfig(heads=4), LAPConfig(heads=2, bottleneck=8, blocks=2)])
def test_gradients_reach_everything_and_agree_in_both_forms(config):
    lap = trained(16, 6, config.model_copy(update={"layer_embedding": True})).double()
    states = torch.randn(4, 6, 16, dtype=torch.float64, requires_grad=True)
    gradients = []
    for folded in (True, False):
        lap.zero_grad()
        states.grad = None
        lap(states, folded=folded)[0].square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lap.parameters())
        gradients.append([states.grad.clone(), *(p.grad.clone() for p in lap.parameters())])
    for a, b in zip(*gradients):
        assert relative(a, b) < 1e-5


def test_a_last_block_with_an_mlp_is_pooled_plainly_and_never_folded():
    lap = trained(16, 6, LAPConfig(heads=4, mlp=True))
    states = torch.randn(3, 6, 16)
    assert not lap.foldable
    assert torch.equal(lap(states)[0], lap(states, folded=False)[0])
    with pytest.raises(ValueError, match="MLP"):
        lap(states, folded=True)


def test_bfloat16_stays_bfloat16_and_near_float32():
    lap = trained(32, 9, LAPConfig(heads=4))
    states = torch.randn(6, 9, 32)
    exact = lap(states)[0]
    pooled, _ = lap.bfloat16()(states.bfloat16())
    assert pooled.dtype == torch.bfloat16
    assert relative(pooled.float(), exact) < 0.03


def test_a_headwise_linear_applies_each_heads_rows_to_that_heads_input():
    linear = HeadwiseLinear(5, 6, heads=3)
    x = torch.randn(4, 5)
    assert torch.allclose(linear(x), linear(x[:, None].expand(4, 3, 5)), atol=1e-6)
    x = torch.randn(4, 3, 5)
    expected = torch.cat([x[:, h] @ linear.weight[2 * h : 2 * h + 2].T for h in range(3)], 1)
    assert torch.allclose(linear(x), expected, atol=1e-6)


def test_no_tokens_give_no_rows():
    pooled, given = LayerwiseAttentionPooling(16, 6)(torch.zeros(0, 6, 16))
    assert pooled.shape == (0, 16) and given.shape == (0, 6)


def test_a_wrong_number_of_layers_is_refused_with_both_numbers():
    with pytest.raises(SqueezeError, match=r"pools 6 layers .* given 7"):
        LayerwiseAttentionPooling(16, 6)(torch.zeros(2, 7, 16))


@pytest.mark.parametrize("config, width", [(LAPConfig(heads=3), 16), (LAPConfig(heads=3, bottleneck=8), 8)])
def test_heads_that_do_not_divide_the_width_are_refused_with_both(config, width):
    with pytest.raises(SqueezeError, match=rf"3 heads .* {width}"):
        LayerwiseAttentionPooling(16, 6, config)
