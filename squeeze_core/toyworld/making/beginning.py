"""Where stage 1 begins: an adapter whose projector says of words what FLUX's own T5 said of them.

A linear map is fitted from what the untrained aggregator gives, near the mean over the MLLM's layers for a DLA, to
T5's states: of a caption's tokens their own, and of a prompt with a picture those of its introduction (`language`),
each of the picture's tokens the mean of the words that tell who it shows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from ... import adapter as adapter_file
from ...dla import Aggregator, Variant
from ...files import save_atomically
from ...mllm.backbone import Prompt
from ...mllm.family import TransformersBackbone
from .. import adapter, language, scenes

VARIANTS: tuple[Variant, ...] = ("dual", "single", "last_layer", "blend_vit", "mix_vit")
CAPTIONS = 1500  # and as many prompts with a picture
_LONE = scenes.WorldOptions(kinds=(("one", 1.0),), carrying=0, styles=scenes.PHOTOS)
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
    features, wanted = _heard(backbone, aggregators, text)
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
def _heard(
    backbone: TransformersBackbone, aggregators: dict[Variant, Aggregator], text: torch.nn.Module
) -> tuple[dict[Variant, list[torch.Tensor]], torch.Tensor]:
    """Pooled layers [tokens, hidden] of each prompt and aggregator, and what T5 says there [all tokens, width]."""
    features: dict[Variant, list[torch.Tensor]] = {variant: [] for variant in aggregators}
    wanted = []
    for index in range(CAPTIONS):
        for prompt, target in (_spoken(index, backbone, text), _shown(index, backbone, text)):
            encoded = backbone.encode(prompt)
            wanted.append(target)
            for variant, aggregator in aggregators.items():
                features[variant].append(aggregator.dla(encoded.states.float(), encoded.image_mask)[0])
    return features, torch.cat(wanted)


def _spoken(index: int, backbone: TransformersBackbone, text: torch.nn.Module) -> tuple[Prompt, torch.Tensor]:
    """A caption and what T5 says at its tokens."""
    caption = scenes.single(0, index).caption
    prompt = Prompt(caption)
    return prompt, _at(_ids(prompt, backbone), _words(caption, backbone), _states(caption, backbone, text))


def _shown(index: int, backbone: TransformersBackbone, text: torch.nn.Module) -> tuple[Prompt, torch.Tensor]:
    """A prompt with a picture, and what T5 says at its tokens when the toy is introduced in words."""
    pair = scenes.pair(0, index, _LONE)
    picture = Image.fromarray(scenes.render(pair.references[0]))
    prompt = Prompt(pair.prompt, (picture,))
    said = _states(language.introduction(pair.target, pair.told), backbone, text)
    who = language.description(pair.target.subjects[0].identity)
    words = _words(pair.prompt, backbone)
    ids = _ids(prompt, backbone)
    target = _at(ids, words, said[-len(words) :])
    image = torch.tensor(ids) == backbone.config.image_token_id
    target[image] = said[1 : len(_words(who, backbone))].mean(0)  # without the article
    return prompt, target


def _ids(prompt: Prompt, backbone: TransformersBackbone) -> list[int]:
    return backbone.inputs(prompt, "cpu")["input_ids"][0].tolist()


def _words(words: str, backbone: TransformersBackbone) -> list[int]:
    return backbone.tokenizer(words)["input_ids"]


def _states(words: str, backbone: TransformersBackbone, text: torch.nn.Module) -> torch.Tensor:
    return text(input_ids=torch.tensor([_words(words, backbone)])).last_hidden_state[0]


def _at(whole: list[int], words: list[int], said: torch.Tensor) -> torch.Tensor:
    """[tokens of the chat, width]: what is said of the words, in their places.

    The chat's own tokens, which T5 never saw, are to say nothing: zeros, as FLUX knows dropped text.
    """
    begin = next(i for i in range(len(whole)) if whole[i : i + len(words)] == words)
    target = torch.zeros(len(whole), said.shape[1])
    target[begin : begin + len(words)] = said
    return target


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
