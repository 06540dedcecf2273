"""DLA: two modalities that never meet, all of Table 6's variants, and both kinds of layer choice."""

import pydantic
import pytest
import torch

from squeeze_core.dla import Aggregator, DLAConfig, DualLayerAggregator, Projector
from squeeze_core.errors import SqueezeError
from squeeze_core.lap import LAPConfig
from squeeze_core.layers import LayerSelection

HIDDEN, LAYERS, CONTEXT = 16, 7, 12
VARIANTS = ["dual", "single", "last_layer", "blend_vit", "mix_vit"]


def config(**changes) -> DLAConfig:
    defaults = {"hidden": HIDDEN, "layers": LAYERS, "context": CONTEXT, "lap": LAPConfig(heads=4)}
    return DLAConfig(**{**defaults, **changes})


def trained(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    return model


def prompt(tokens: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """States and a mask with images in the middle, as chat templates put them."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[2 : tokens // 2 + 1] = True
    return torch.randn(LAYERS, tokens, HIDDEN, generator=generator), mask


def test_a_text_token_never_depends_on_image_tokens_or_the_image_lap():
    dla = trained(DualLayerAggregator(config()))
    states, mask = prompt()
    before, weights = dla(states, mask)
    other = states.clone()
    other[:, mask] = torch.randn_like(other[:, mask])
    trained(dla.image, seed=1)
    after, weights_after = dla(other, mask)
    assert torch.equal(before[~mask], after[~mask]) and torch.equal(weights.text, weights_after.text)
    assert not torch.isclose(before[mask], after[mask]).any()


def test_an_image_token_never_depends_on_text_tokens_or_the_text_lap():
    dla = trained(DualLayerAggregator(config()))
    states, mask = prompt()
    before, weights = dla(states, mask)
    other = states.clone()
    other[:, ~mask] = torch.randn_like(other[:, ~mask])
    trained(dla.text, seed=1)
    after, weights_after = dla(other, mask)
    assert torch.equal(before[mask], after[mask]) and torch.equal(weights.image, weights_after.image)
    assert not torch.isclose(before[~mask], after[~mask]).any()


def test_the_number_of_pictures_changes_no_text_token():
    dla = trained(DualLayerAggregator(config()))
    states, mask = prompt()
    alone, weights = dla(states[:, ~mask], mask[~mask])
    assert torch.equal(alone, dla(states, mask)[0][~mask])
    assert weights.image is None and weights.text is not None


def test_last_layer_is_the_last_state_for_all_tokens():
    states, mask = prompt()
    pooled, weights = DualLayerAggregator(config(variant="last_layer"))(states, mask)
    assert torch.equal(pooled, states[-1])
    assert weights.text is weights.image is weights.text_direct is weights.image_direct is None


def test_mix_vit_takes_layer_0_at_image_tokens_and_the_last_at_text():
    states, mask = prompt()
    pooled, _ = DualLayerAggregator(config(variant="mix_vit"))(states, mask)
    assert torch.equal(pooled[mask], states[0, mask]) and torch.equal(pooled[~mask], states[-1, ~mask])


def test_blend_vit_mixes_layer_0_and_the_last_by_two_learned_numbers_at_image_tokens():
    states, mask = prompt()
    dla = DualLayerAggregator(config(variant="blend_vit"))
    assert torch.allclose(dla(states, mask)[0][mask], (states[0, mask] + states[-1, mask]) / 2)
    dla.blend.weight.data = torch.tensor([[0.25, -2.0]])
    pooled, _ = dla(states, mask)
    assert torch.allclose(pooled[mask], 0.25 * states[0, mask] - 2 * states[-1, mask], atol=1e-6)
    assert torch.equal(pooled[~mask], states[-1, ~mask])


def test_a_single_lap_pools_all_tokens_by_one_rule_and_a_dual_one_by_two():
    states, mask = prompt()
    single = trained(DualLayerAggregator(config(variant="single")))
    pooled, _ = single(states, mask)
    expected = single.both(states.transpose(0, 1))[0]
    assert torch.allclose(pooled, expected, atol=1e-6)
    assert torch.allclose(single(states, ~mask)[0], pooled, atol=1e-6)  # who is an image does not matter
    dual = trained(DualLayerAggregator(config()))
    assert not torch.allclose(dual(states, ~mask)[0], dual(states, mask)[0], atol=1e-2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("residual", [False, True])
def test_every_variant_gives_context_of_the_dits_width_in_the_order_of_tokens(variant, residual):
    states, mask = prompt()
    aggregator = trained(Aggregator(config(variant=variant, lap=LAPConfig(heads=4, residual=residual))))
    context, weights = aggregator(states, mask)
    assert context.shape == (9, CONTEXT)
    order = torch.randperm(9)
    assert torch.allclose(aggregator(states[:, order], mask[order])[0], context[order], atol=1e-5)
    if variant in ("dual", "single"):
        assert all(
            w.shape == (LAYERS,) for w in (weights.text, weights.image, weights.text_direct, weights.image_direct)
        )


@pytest.mark.parametrize("layers", ["all", "0-2"])
@pytest.mark.parametrize("variant", ["dual", "single"])
def test_a_residual_is_to_the_mllms_last_layer_whichever_layers_are_pooled(variant, layers):
    states, mask = prompt()
    options = {"variant": variant, "text_layers": layers, "image_layers": layers}
    pooled, with_residual = (
        trained(DualLayerAggregator(config(lap=LAPConfig(heads=4, residual=residual), **options)))(states, mask)[0]
        for residual in (False, True)
    )
    assert torch.allclose(with_residual, pooled + states[-1], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_selection_at_inference_is_zeroing_the_states_by_hand(variant):
    dla = trained(DualLayerAggregator(config(variant=variant)))
    states, mask = prompt()
    text, image = LayerSelection.parse("0-2"), LayerSelection.parse("3-4,6")
    by_hand = states.clone()
    by_hand[3:, ~mask] = 0
    by_hand[[0, 1, 2, 5]] *= (~mask[:, None]).float()
    chosen, _ = dla(states, mask, text_layers=text, image_layers=image)
    assert torch.equal(chosen, dla(by_hand, mask)[0])
    assert not torch.equal(chosen, dla(states, mask)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_changes_nothing_and_none_silences_one_modality(variant):
    dla = trained(DualLayerAggregator(config(variant=variant)))
    states, mask = prompt()
    full, _ = dla(states, mask)
    everything = LayerSelection.parse("all")
    assert torch.equal(dla(states, mask, text_layers=everything, image_layers=everything)[0], full)
    silent, _ = dla(states, mask, image_layers=LayerSelection.parse("none"))
    assert (silent[mask] == 0).all() and torch.equal(silent[~mask], full[~mask])


def test_layers_trained_on_are_pooled_and_the_others_never_read():
    dla = trained(DualLayerAggregator(config(text_layers="1-3", image_layers="0,6")))
    assert dla.text.pool.weight.shape == (1, 3) and dla.image.pool.weight.shape == (1, 2)
    states, mask = prompt()
    pooled, weights = dla(states, mask)
    assert torch.allclose(pooled[~mask], dla.text(states[1:4, ~mask].transpose(0, 1))[0], atol=1e-6)
    assert torch.allclose(pooled[mask], dla.image(states[[0, 6]][:, mask].transpose(0, 1))[0], atol=1e-6)
    assert weights.text.nonzero().flatten().tolist() == [1, 2, 3]
    assert weights.image_direct.nonzero().flatten().tolist() == [0, 6]
    other = states.clone()
    other[[4, 5]] = torch.nan
    assert torch.equal(dla(other, mask)[0], pooled)


def test_zeroing_at_inference_and_the_layers_trained_on_are_two_different_things():
    dla = trained(DualLayerAggregator(config(text_layers="1-3")))
    states, mask = prompt()
    by_hand = states.clone()
    by_hand[1] = 0
    zeroed, _ = dla(states, mask, text_layers=LayerSelection.parse("2-6"))
    assert torch.equal(zeroed[~mask], dla(by_hand, mask)[0][~mask])


def test_layer_weights_are_what_the_laps_gave_on_average():
    dla = trained(DualLayerAggregator(config()))
    states, mask = prompt()
    _, weights = dla(states, mask)
    assert torch.allclose(weights.text, dla.text(states[:, ~mask].transpose(0, 1))[1].mean(0), atol=1e-6)
    assert torch.equal(weights.image_direct, dla.image.pool.weight.detach().flatten())
    assert not weights.text_direct.requires_grad and not weights.text.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_a_concatenation_of_prompts(variant):
    aggregator = trained(Aggregator(config(variant=variant)))
    prompts = [prompt(5, 1), prompt(12, 2), prompt(3, 3)]
    together, _ = aggregator(torch.cat([s for s, _ in prompts], 1), torch.cat([m for _, m in prompts]))
    alone = torch.cat([aggregator(*one)[0] for one in prompts])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["dual", "single"])
def test_folded_and_plain_agree_through_the_whole_aggregator(variant):
    aggregator = trained(Aggregator(config(variant=variant)))
    folded, plain = (aggregator(*prompt(), folded=form)[0] for form in (True, False))
    assert (folded - plain).norm() / plain.norm() < 1e-5


def test_gradients_reach_both_laps_and_the_projector():
    aggregator = trained(Aggregator(config()))
    aggregator(*prompt())[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in aggregator.parameters())


def test_the_projector_is_an_rms_norm_and_a_linear_map():
    projector = trained(Projector(HIDDEN, CONTEXT))
    x = torch.randn(4, HIDDEN)
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * projector.norm.weight
    assert torch.allclose(projector(x), projector.linear(normed), atol=1e-5)
    assert torch.allclose(projector(x * 1000), projector(x), atol=1e-4)


@pytest.mark.parametrize("shape", [(LAYERS + 1, 9, HIDDEN), (LAYERS, 9, HIDDEN + 2)])
def test_states_of_another_model_are_refused_with_all_four_sizes(shape):
    with pytest.raises(SqueezeError, match=rf"{LAYERS} layers of width {HIDDEN} .* {shape[0]} of width {shape[2]}"):
        DualLayerAggregator(config())(torch.zeros(*shape), prompt()[1])


@pytest.mark.parametrize("mask", [torch.zeros(8, dtype=torch.bool), torch.zeros(9)])
def test_a_mask_that_does_not_fit_the_tokens_is_refused(mask):
    with pytest.raises(SqueezeError, match=r"mask .*\[9\]"):
        DualLayerAggregator(config())(prompt()[0], mask)


def test_a_selection_beyond_the_model_names_the_valid_range():
    with pytest.raises(SqueezeError, match="0-6"):
        DualLayerAggregator(config())(*prompt(), text_layers=LayerSelection.parse("3-7"))


def test_training_on_no_layers_or_on_layers_that_do_not_exist_is_refused():
    with pytest.raises(SqueezeError, match="at least one layer"):
        DualLayerAggregator(config(text_layers="none"))
    with pytest.raises(SqueezeError, match="0-6"):
        DualLayerAggregator(config(image_layers="0-9"))
    with pytest.raises(SqueezeError, match="text 0-1 and image all"):
        DualLayerAggregator(config(variant="single", text_layers="0-1"))


def test_an_unreadable_or_unknown_setting_is_refused_by_name():
    for changes in ({"text_layers": "x"}, {"variant": "triple"}, {"hidden": 0}, {"colour": 1}):
        with pytest.raises(pydantic.ValidationError, match=next(iter(changes))):
            config(**changes)
