"""Qwen2.5-VL: a picture keeps its aspect ratio and gives one token for each 28x28 px."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .family import TransformersBackbone

if TYPE_CHECKING:
    from PIL.Image import Image

_TOKENS_PER_TILE = 256  # the budget that makes `tiles` mean the same as for InternVL3
_FEWEST_TOKENS = 4  # the real processor's own least, 56x56 px


class QwenVL(TransformersBackbone):
    model_type = "qwen2_5_vl"
    model_class = "Qwen2_5_VLForConditionalGeneration"
    image_processor_class = "Qwen2VLImageProcessor"
    renames = (
        (r"^visual\.", "model.visual."),
        (r"^language_model\.", "model.language_model."),
        (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
    )

    def pictures(self, images: list[Image], tiles: int) -> tuple[list[str], dict[str, torch.Tensor]]:
        """pixel_values: [all patches, values of a patch]; image_grid_thw: [pictures, 3], in patches.

        At most tiles * 256 tokens a picture; larger pictures are scaled down to fit, never cropped.
        """
        if not images:
            return [], {}
        merge = self.image_processor.merge_size
        pixels_per_token = (self.image_processor.patch_size * merge) ** 2
        size = {
            "shortest_edge": _FEWEST_TOKENS * pixels_per_token,
            "longest_edge": tiles * _TOKENS_PER_TILE * pixels_per_token,
        }
        # One by one: in a batch, some versions give every picture the size of the first.
        read = [self.image_processor(images=image, size=size, return_tensors="pt") for image in images]
        grids = torch.cat([each["image_grid_thw"] for each in read])
        tokens = [int(grid.prod()) // merge**2 for grid in grids]
        marks = [f"<|vision_start|>{self.image_token * count}<|vision_end|>" for count in tokens]
        pixels = torch.cat([each["pixel_values"] for each in read])
        return marks, {"pixel_values": pixels, "image_grid_thw": grids}
