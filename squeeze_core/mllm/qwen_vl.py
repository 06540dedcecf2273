"""Qwen2.5-VL: a picture keeps its aspect ratio and gives one token for each 28x28 px."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .family import TransformersBackbone
from .reading import PLAIN, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

_TOKENS_PER_TILE = 256  # the budget that makes `tiles` mean the same as for InternVL3
_FEWEST_TOKENS = 4  # the real processor's own least, 56x56 px


class QwenVL(TransformersBackbone):
    model_type = "qwen2_5_vl"
    model_class = "Qwen2_5_VLForConditionalGeneration"
    image_processor_class = "Qwen2VLImageProcessor"
    image_token = "<|image_pad|>"
    picture_ends = ("<|vision_start|>", "<|vision_end|>")
    renames = (
        (r"^visual\.", "model.visual."),
        (r"^language_model\.", "model.language_model."),
        (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
    )

    def pictures(
        self, images: list[Image], tiles: int, reading: Reading = PLAIN
    ) -> tuple[list[str], dict[str, torch.Tensor]]:
        """pixel_values: [all patches, values of a patch]; image_grid_thw: [pictures, 3], in patches.

        At most tiles * 256 tokens a picture, or what `reading` says; larger pictures are scaled down to fit, never
        cropped.
        """
        if not images:
            return [], {}
        merge = self.image_processor.merge_size
        side = merge * self.image_processor.patch_size
        most = tiles * _TOKENS_PER_TILE
        if reading.picture_side and reading.keep_shape:
            most = max(_FEWEST_TOKENS, reading.picture_side**2 // side**2)
        elif reading.picture_side:
            images = [image.resize((reading.picture_side,) * 2, _BICUBIC) for image in images]
        # Sized here, because versions of the processor disagree on which of its size settings counts. One by
        # one, because in a batch some give every picture the size of the first.
        read = [
            self.image_processor(
                images=image.resize(fitting_size(image.size, side, most), _BICUBIC),
                do_resize=False,
                return_tensors="pt",
            )
            for image in images
        ]
        grids = torch.cat([each["image_grid_thw"] for each in read])
        tokens = [int(grid.prod()) // merge**2 for grid in grids]
        start, end = self.picture_ends
        marks = [f"{start}{self.image_token * count}{end}" for count in tokens]
        pixels = torch.cat([each["pixel_values"] for each in read])
        return marks, {"pixel_values": pixels, "image_grid_thw": grids}


_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, without importing Pillow here


def fitting_size(size: tuple[int, int], side: int, most_tokens: int) -> tuple[int, int]:
    """(width, height) in whole tokens of `side` px, nearest to the given size and its aspect ratio.

    The same sizes as the model's own processor chooses for a budget of 4 to `most_tokens` tokens.
    """
    pixels = size[0] * size[1]
    counts = [max(1, round(length / side)) for length in size]
    # In the processor's order of operations: another one rounds exact fits the other way.
    if counts[0] * counts[1] > most_tokens:
        shrink = math.sqrt(pixels / (most_tokens * side**2))
        counts = [max(1, math.floor(length / shrink / side)) for length in size]
    elif counts[0] * counts[1] < _FEWEST_TOKENS:
        grow = math.sqrt(_FEWEST_TOKENS * side**2 / pixels)
        counts = [math.ceil(length * grow / side) for length in size]
    return counts[0] * side, counts[1] * side
