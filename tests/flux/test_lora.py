"""LoRA: one form that means the same everywhere."""

import pytest
import torch

from squeeze_core.errors import SqueezeError
from squeeze_core.flux.lora import PREFIX, attention_modules, baked, check_lora


def tiny_flux():
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def delta(state: dict[str, torch.Tensor], module: str) -> torch.Tensor:
    return state[f"{PREFIX}{module}.lora_B.weight"] @ state[f"{PREFIX}{module}.lora_A.weight"]


def pair(module: str, infix: str = "", prefix: str = "") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        f"{prefix}{module}.lora_A{infix}.weight": torch.randn(2, 6),
        f"{prefix}{module}.lora_B{infix}.weight": torch.randn(6, 2),
    }


MODULE = "transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model."])
@pytest.mark.parametrize("infix", ["", ".default"])
def test_every_prefix_of_peft_and_diffusers_becomes_ours(prefix, infix):
    result = baked(pair(MODULE, infix, prefix))
    assert list(result) == [f"transformer.{MODULE}.lora_A.weight", f"transformer.{MODULE}.lora_B.weight"]
    assert torch.equal(delta(result, MODULE), delta(baked(pair(MODULE)), MODULE))


def test_alpha_over_rank_goes_into_b_and_no_alpha_is_left():
    given = pair(MODULE)
    plain = given[f"{MODULE}.lora_B.weight"] @ given[f"{MODULE}.lora_A.weight"]
    assert torch.allclose(delta(baked(given), MODULE), plain)  # alpha = rank: a scale of 1
    assert torch.allclose(delta(baked(pair(MODULE), alpha=8), MODULE), plain * 4)
    own = baked({**pair(MODULE), f"transformer.{MODULE}.alpha": torch.tensor(1.0)}, alpha=8)
    assert torch.allclose(delta(own, MODULE), plain / 2)  # a module's own alpha goes before the common one
    assert not any("alpha" in key for key in own)


@pytest.mark.parametrize(
    "key", ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "double_blocks.0.img_attn.qkv.weight"]
)
def test_keys_of_another_kind_are_refused_by_name(key):
    with pytest.raises(SqueezeError, match=key):
        baked({key: torch.zeros(1)})


def test_the_listed_modules_exist_in_diffusers_flux_with_the_checked_shapes():
    model = tiny_flux()
    modules = dict(model.named_modules())
    names = attention_modules(2, 2)
    assert len(names) == 2 * 8 + 2 * 3
    shapes = {}
    for name in names:
        shapes[f"{PREFIX}{name}.lora_A.weight"] = (4, modules[name].in_features)
        shapes[f"{PREFIX}{name}.lora_B.weight"] = (modules[name].out_features, 4)
    check_lora(shapes, 32, 2, 2, 4, "a file")


def test_every_linear_map_inside_the_blocks_is_accepted_with_its_true_shape():
    shapes = {}
    for name, module in tiny_flux().named_modules():
        if isinstance(module, torch.nn.Linear) and "transformer_blocks." in name:
            shapes[f"{PREFIX}{name}.lora_A.weight"] = (4, module.in_features)
            shapes[f"{PREFIX}{name}.lora_B.weight"] = (module.out_features, 4)
    check_lora(shapes, 32, 2, 2, 4, "a file")


def test_our_form_means_in_diffusers_and_peft_what_it_means_here():
    """diffusers loads the saved form; its output equals that of weights changed by B A."""
    from diffusers import FluxPipeline

    torch.manual_seed(1)
    state = {}
    plain, merged = tiny_flux(), tiny_flux()
    weights = dict(merged.named_modules())
    for name in attention_modules(2, 2):
        module = weights[name]
        peft = {
            f"base_model.model.{name}.lora_A.weight": torch.randn(2, module.in_features) / 4,
            f"base_model.model.{name}.lora_B.weight": torch.randn(module.out_features, 2) / 4,
        }
        ours = baked(peft, alpha=4)
        state |= ours
        module.weight.data += delta(ours, name)
    pipe = FluxPipeline(None, None, None, None, None, None, plain)
    pipe.load_lora_weights(dict(state))
    inputs = {
        "hidden_states": torch.randn(1, 6, 4),
        "encoder_hidden_states": torch.randn(1, 3, 8),
        "pooled_projections": torch.randn(1, 8),
        "timestep": torch.tensor([0.5]),
        "guidance": None,
        "img_ids": torch.zeros(6, 3),
        "txt_ids": torch.zeros(3, 3),
    }
    with torch.no_grad():
        adapted, expected = plain(**inputs).sample, merged(**inputs).sample
        bare = tiny_flux()(**inputs).sample
    assert torch.allclose(adapted, expected, atol=1e-4)
    assert not torch.allclose(adapted, bare, atol=1e-2)
