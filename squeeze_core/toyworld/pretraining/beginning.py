"""Where stage 1 begins: an adapter whose projector says of a caption what FLUX's own T5 said of it.

A linear map is fitted from what the untrained aggregator gives, near the mean over the MLLM's layers for a DLA, to
T5's states of the same tokens. It knows words only; who a picture shows is left for the two stages to learn.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from ... import adapter as adapter_file
from ...dla import Aggregator, Variant
from ...files import save_atomically
from ...mllm.backbone import Prompt
from ...mllm.family import TransformersBackbone
from .. import adapter, flux, scenes

VARIANTS: tuple[Variant, ...] = ("dual", "single", "last_layer", "blend_vit", "mix_vit")
CAPTIONS = 1500
_RIDGE = 1e-3  # of the mean square of a feature, 1


def write_projectors(path: Path, text_weights: Path, mllm_folder: Path) -> dict[str, float]:
    """Fit a projector for each variant of the aggregator and write all of them, bf16.

    text_weights: of the T5 that FLUX learned with. Returns the share of T5's variance that each explains.
    """
    from ...mllm.loading import load
    from .painter import text_encoder

    text = text_encoder().eval()
    state = {name: tensor.float() for name, tensor in load_file(text_weights).items()}
    text.load_state_dict({**state, "encoder.embed_tokens.weight": state["shared.weight"]})  # tied
    backbone = load(mllm_folder, device="cpu")
    assert isinstance(backbone, TransformersBackbone)
    aggregators = {variant: _untrained(mllm_folder, variant) for variant in VARIANTS}
    features, wanted = _spoken(backbone, aggregators, text, CAPTIONS)
    explained: dict[str, float] = {}
    tensors: dict[str, torch.Tensor] = {}
    for variant, aggregator in aggregators.items():
        explained[variant] = _fit(aggregator, torch.cat(features[variant]), wanted)
        for name, tensor in aggregator.projector.linear.state_dict().items():
            tensors[f"{variant}.{name}"] = tensor.to(torch.bfloat16)
    save_atomically(path, tensors, {"format": "pt"})
    return explained


def write_start(path: Path, projectors: Path, mllm_folder: Path, variant: Variant = "dual") -> None:
    """Write the adapter: an untrained aggregator, its fitted projector, a LoRA that does nothing yet."""
    settings = adapter.config(adapter.final_norm_hash(mllm_folder), adapter.TRAINED_LORA_RANK, variant)
    aggregator = _untrained(mllm_folder, variant)
    fitted = load_file(projectors)
    linear = {name: fitted[f"{variant}.{name}"].float() for name in ("weight", "bias")}
    aggregator.projector.linear.load_state_dict(linear)
    lora = {
        name: tensor * (0.0 if ".lora_B." in name else 1.0)
        for name, tensor in adapter.lora_state(0, settings).items()
    }
    adapter_file.save(path, settings, aggregator.state_dict(), lora)


def _untrained(mllm_folder: Path, variant: Variant) -> Aggregator:
    """The same each time. Touches no global random numbers."""
    settings = adapter.config(adapter.final_norm_hash(mllm_folder), adapter.TRAINED_LORA_RANK, variant)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Aggregator(settings.dla)


@torch.no_grad()
def _spoken(
    backbone: TransformersBackbone, aggregators: dict[Variant, Aggregator], text: torch.nn.Module, captions: int
) -> tuple[dict[Variant, list[torch.Tensor]], torch.Tensor]:
    """Pooled layers [tokens, hidden] of each caption and aggregator, and T5's states [all tokens, width].

    The chat's own tokens, which T5 never saw, are to say nothing: zeros, as FLUX knows dropped text.
    """
    features: dict[Variant, list[torch.Tensor]] = {variant: [] for variant in aggregators}
    wanted = []
    for index in range(captions):
        caption = scenes.single(0, index).caption
        ids = backbone.tokenizer(caption)["input_ids"]
        encoded = backbone.encode(Prompt(caption))
        whole = backbone.inputs(Prompt(caption), "cpu")["input_ids"][0].tolist()
        begin = next(i for i in range(len(whole)) if whole[i : i + len(ids)] == ids)
        target = torch.zeros(len(whole), flux.CONTEXT_WIDTH)
        target[begin : begin + len(ids)] = text(input_ids=torch.tensor([ids])).last_hidden_state[0]
        wanted.append(target)
        for variant, aggregator in aggregators.items():
            features[variant].append(aggregator.dla(encoded.states.float(), encoded.image_mask)[0])
    return features, torch.cat(wanted)


@torch.no_grad()
def _fit(aggregator: Aggregator, features: torch.Tensor, wanted: torch.Tensor) -> float:
    """Ridge regression behind the projector's norm, in float64. Returns the share of variance explained."""
    projector = aggregator.projector
    x = projector.norm(features).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    y = wanted.double()
    ridge = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    projector.linear.weight.copy_(solved[:-1].T)
    projector.linear.bias.copy_(solved[-1])
    return float(1 - (x @ solved - y).square().sum() / (y - y.mean(0)).square().sum())
