"""Where stage 1 begins: an adapter whose projector says of words what FLUX's own T5 said of them.

The fit of stage 0 (`training.distillation.fit`), on captions and on pictures of lone toys, for each variant of the
aggregator alike.
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
from ...training.distillation.fit import Projection, pairs
from .. import adapter, training
from ..examples import ToyTold

VARIANTS: tuple[Variant, ...] = ("dual", "single", "last_layer", "blend_vit", "mix_vit")
CAPTIONS = 1500  # and as many prompts with a picture


def write_projectors(path: Path, text_weights: Path, mllm_folder: Path) -> dict[str, float]:
    """Fit a projector for each variant of the aggregator and write all of them, bf16.

    text_weights: of the T5 that FLUX learned with. Returns the share of T5's variance that each explains.
    """
    from ...mllm.loading import load

    words = training.words(text_weights, mllm_folder)
    backbone = load(mllm_folder, device="cpu")
    assert isinstance(backbone, TransformersBackbone)
    fits = {variant: Projection(_untrained(mllm_folder, variant)) for variant in VARIANTS}
    sources = (
        ToyTold(says="caption"),
        ToyTold(says="prompt", kinds={"one": 1.0}, carrying=0, plain_styles=True),
    )
    for index in range(CAPTIONS):
        told = [source[index] for source in sources]
        prompts = [Prompt(each.prompt, each.pictures) for each in told]
        for pair in pairs(told, prompts, backbone, words, torch.device("cpu")):
            for fit in fits.values():
                fit.add(pair)
    explained: dict[str, float] = {variant: fit.set() for variant, fit in fits.items()}
    tensors = {
        f"{variant}.{name}": tensor.to(torch.bfloat16)
        for variant, fit in fits.items()
        for name, tensor in fit.aggregator.projector.linear.state_dict().items()
    }
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
