"""Krea 2: its conditioning holds twelve tapped layers of the MLLM for each token, side by side.

Table A of the paper on public weights: layers zeroed apart for text and for picture tokens. Nothing in the
conditioning says which tokens are pictures, so they are located by tokenizing once more, as core's encode node did.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from einops import rearrange

from ..squeeze_core.dla import LayerWeights
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.layers import LayerSelection
from .sockets import CATEGORY, pictures_input

TAPS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)  # of Qwen3-VL-4B's layers 0 to 36
LAYERS, WIDTH = 37, 2560
MARKED = "squeeze_picture_tokens"  # in the options of an entry: [tokens] bool
PICTURES = 3  # what core's encode node takes
_IM_START, _USER, _NEWLINE = 151644, 872, 198


class SelectLayers(io.ComfyNode):
    """Krea 2's conditioning with some of its layers zeroed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        selection = (
            'Layers of the MLLM left standing; the others become 0. "all", "none", or ranges such as "0-9,20-28". '
            "Krea 2 taps the layers 2, 5, 8 ... 35."
        )
        return io.Schema(
            node_id="SqueezeSelectLayers",
            display_name="Select Layers (Krea 2)",
            category=CATEGORY,
            description="Zero layers of the MLLM in Krea 2's conditioning, apart for text and for picture tokens "
            "(Table A of the paper). The output feeds gate and sampler.",
            search_aliases=["Krea 2 layers", "zero layers", "layer ablation"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="Of Krea 2, before the Timestep Gate."),
                io.String.Input("text_layers", default="all", tooltip=f"For text tokens. {selection}"),
                io.String.Input("image_layers", default="all", tooltip=f"For picture tokens. {selection}"),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The encode node's. Needed, with prompt and pictures, when the two differ.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The encode node's. It tells where the picture tokens are.",
                ),
                pictures_input("The encode node's pictures, in its order; at most three."),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="For the gate or the sampler.")],
        )

    @classmethod
    def validate_inputs(cls, text_layers: str | None = None, image_layers: str | None = None) -> bool | str:
        for text in (text_layers, image_layers):
            try:
                if text is not None:  # connected to another node: known only when it runs
                    LayerSelection.parse(text).indices(LAYERS)
            except ValueError as error:
                return str(error)  # ComfyUI says it at both; the text that is wrong is quoted
        return True

    @classmethod
    def execute(
        cls, conditioning, text_layers: str, image_layers: str, clip=None, prompt: str = "", images=None
    ) -> io.NodeOutput:
        text, image = LayerSelection.parse(text_layers), LayerSelection.parse(image_layers)
        pictures = [picture for picture in (images or {}).values() if picture is not None]
        result = []
        for tokens, options in conditioning:
            check(tokens)
            if text == image and clip is None:
                where, marked = torch.zeros(tokens.shape[1], dtype=torch.bool), dict(options)
            else:
                where = picture_tokens(clip, prompt, pictures, tokens.shape[1])
                marked = {**options, MARKED: where}
            result.append([selected(tokens, where, text, image), marked])
        return io.NodeOutput(result)


def check(tokens: Any) -> None:
    """Raises `SqueezeError` unless these are Krea 2's tokens, [batch, tokens, 12 x 2560]."""
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3 or tokens.shape[-1] != len(TAPS) * WIDTH:
        shape = list(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise SqueezeError(
            f"This conditioning is {shape}; Select Layers takes Krea 2's, [batch, tokens, {len(TAPS) * WIDTH}]. "
            "Encode with a CLIP of type krea2, and put the gate behind this node."
        )


def selected(
    tokens: torch.Tensor, pictures: torch.Tensor, text_layers: LayerSelection, image_layers: LayerSelection
) -> torch.Tensor:
    """The tokens with the layers that were not chosen zeroed; the rest keeps every bit.

    tokens: [batch, tokens, taps x width]. pictures: [tokens] bool. Raises `SqueezeError` for a layer above 36.
    """
    taps = list(TAPS)
    text, image = (selection.mask(LAYERS)[taps] for selection in (text_layers, image_layers))
    keep = torch.where(pictures[:, None], image, text).to(tokens.device)  # [tokens, taps]
    layers = rearrange(tokens, "b l (n d) -> b l n d", n=len(taps))
    return rearrange(layers.masked_fill(~keep[None, :, :, None], 0), "b l n d -> b l (n d)")


def picture_tokens(clip: Any, prompt: str, pictures: Sequence[torch.Tensor], count: int) -> torch.Tensor:
    """[count] bool: which tokens of a conditioning are pictures.

    Raises `SqueezeError` when clip, prompt and pictures do not give that many tokens.
    """
    if clip is None:
        raise SqueezeError(
            "text_layers and image_layers differ, and nothing says which tokens are pictures. Connect the encode "
            "node's clip, and give its prompt and pictures."
        )
    if len(pictures) > PICTURES:
        raise SqueezeError(f"There are {len(pictures)} pictures; core's encode node takes {PICTURES}.")
    found = [_located(pairs) for pairs in _tokenized(clip, prompt, pictures)]
    for where in found:
        if len(where) == count:
            return where
    lengths = " or ".join(str(len(where)) for where in found)
    raise SqueezeError(
        f"Prompt and pictures give {lengths} tokens, and the conditioning has {count}. Give the same prompt and "
        "the same pictures, in the same order, as the encode node has (Text Encode Qwen Image Edit Plus)."
    )


class _Asked:
    """In a CLIP's place in core's encode nodes: tokenizes, and encodes nothing."""

    def __init__(self, clip: Any):
        self.clip = clip

    def tokenize(self, *args, **kwargs) -> Any:
        self.tokens = self.clip.tokenize(*args, **kwargs)
        return self.tokens

    def encode_from_tokens_scheduled(self, tokens, *args, **kwargs) -> list:
        return []


def _tokenized(clip: Any, prompt: str, pictures: Sequence[torch.Tensor]) -> list[list[tuple]]:
    """What each of core's encode nodes gives the text encoder."""
    from comfy_extras.nodes_qwen import TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus

    if not pictures:
        return [_pairs(clip.tokenize(prompt))]
    asked = _Asked(clip)
    TextEncodeQwenImageEditPlus.execute(asked, prompt, None, *pictures)
    found = [_pairs(asked.tokens)]
    if len(pictures) == 1:
        TextEncodeQwenImageEdit.execute(asked, prompt, None, *pictures)
        found.append(_pairs(asked.tokens))
    return found


def _pairs(tokens: Any) -> list[tuple]:
    if "qwen3vl_4b" not in tokens:
        raise SqueezeError("This CLIP is not Krea 2's. Load it with the type krea2.")
    return tokens["qwen3vl_4b"][0]


def _located(pairs: Sequence[tuple]) -> torch.Tensor:
    """[tokens] bool: the pictures, after what core's text encoder strips of the template (krea2.py)."""
    where: list[bool] = []
    for token, *_ in pairs:
        where += [True] * _picture_size(token["data"]) if isinstance(token, dict) else [False]
    return torch.tensor(where[_stripped([token for token, *_ in pairs], len(where)) :])


def _picture_size(picture: torch.Tensor) -> int:
    from comfy.text_encoders.qwen_vl import process_qwen2vl_images

    half = [0.5, 0.5, 0.5]
    _, grid = process_qwen2vl_images(picture, patch_size=16, image_mean=half, image_std=half)
    return math.prod(int(side) for side in grid.flatten()) // 4  # 2 x 2 patches a token


def _stripped(tokens: Sequence[Any], length: int) -> int:
    starts = [n for n, token in enumerate(tokens) if isinstance(token, numbers.Integral) and token == _IM_START][:2]
    if not starts:
        return max(length - 1, 0)  # out[:, :, -1:], as core then does
    end = starts[-1]
    if length > end + 3 and tokens[end + 1] == _USER and tokens[end + 2] == _NEWLINE:
        end += 3
    return end


def weights_of(model: Any, conditioning: list) -> LayerWeights:
    """What Krea 2 gives to each of the MLLM's 37 layers for a conditioning, 0 for those that it does not tap.

    Of the first entry. Where no picture tokens are marked, all count as text. Raises `SqueezeError`.
    """
    if not hasattr(getattr(model.model, "diffusion_model", None), "txtfusion"):
        raise SqueezeError("This model is not Krea 2. Connect weights from Aggregate instead of model.")
    tokens, options = conditioning[0]
    check(tokens)
    where = options.get(MARKED)
    found = layer_weights(model, tokens, torch.zeros(tokens.shape[1], dtype=torch.bool) if where is None else where)

    def spread(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else torch.zeros(LAYERS).index_copy_(0, torch.tensor(TAPS), values)

    parts = [spread(values) for values in (found.text, found.image, found.text_direct, found.image_direct)]
    return LayerWeights(*parts, note="" if where is not None else "Picture tokens are not told apart here.")


def layer_weights(model: Any, tokens: torch.Tensor, pictures: torch.Tensor) -> LayerWeights:
    """What Krea 2's own fusion gives to each tapped layer, for plots: [12] each, over text and over picture tokens.

    The last layerwise block's attention, mean over heads and tokens, weighted by the projector: as `LayerWeights`
    says of a LAP. model: a MODEL. tokens: [1, tokens, taps x width]. pictures: [tokens] bool.
    """
    comfy.model_management.load_models_gpu([model])
    net = model.model.diffusion_model
    fusion, device, dtype = net.txtfusion, model.load_device, model.model.get_dtype_inference()
    taken: list[torch.Tensor] = []

    def watch(function, q, k, v, heads, *args, **kwargs):
        if q.shape[0] == tokens.shape[1] and q.shape[-2] == len(TAPS):
            scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
            taken.append(scores.softmax(-1).mean(1))  # [tokens, taps, taps]
        return function(q, k, v, heads, *args, **kwargs)

    layers = rearrange(tokens[:1], "b l (n d) -> b l n d", n=len(TAPS)).to(device, dtype)
    with torch.no_grad():
        fusion(layers, mask=None, transformer_options={"optimized_attention_override": watch})
        learned = fusion.projector(torch.eye(len(TAPS), device=device, dtype=dtype))[:, 0].float()
        given = torch.einsum("i,tij->tj", learned, taken[-1]).cpu()
    learned = learned.cpu()

    def mean(which: torch.Tensor) -> torch.Tensor | None:
        return given[which].mean(0) if which.any() else None

    return LayerWeights(mean(~pictures), mean(pictures), learned, learned)
