"""InternVL3 (and 2.5, 3.5) in the -hf layout: tiles of 448 px, 256 tokens each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .family import TransformersBackbone
from .reading import PLAIN, Reading

if TYPE_CHECKING:
    from PIL.Image import Image


class InternVL(TransformersBackbone):
    model_type = "internvl"
    model_class = "InternVLForConditionalGeneration"
    image_processor_class = "GotOcr2ImageProcessor"
    image_token = "<IMG_CONTEXT>"
    picture_ends = ("<img>", "</img>")
    renames = (
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^language_model\.", "model.language_model."),
        (r"^vision_tower\.", "model.vision_tower."),
        (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    )

    @property
    def tokens_per_tile(self) -> int:
        """256 for the real models: (448 / 14)^2 patches, each 2x2 of them shuffled into one token."""
        vision = self.config.vision_config
        rows, columns = (side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True))
        return int(rows * columns * self.config.downsample_ratio**2)

    def pictures(
        self, images: list[Image], tiles: int, reading: Reading = PLAIN
    ) -> tuple[list[str], dict[str, torch.Tensor]]:
        """pixel_values: [all tiles, 3, 448, 448]. More than one tile comes with a thumbnail besides.

        The number of tiles is always given: the processor's own default makes 10 of a 1024x1024 picture. `reading`
        has no say, because the vision tower reads one size.
        """
        if not images:
            return [], {}
        height, width = self.config.vision_config.image_size
        cut = [
            self.image_processor(
                images=image,
                crop_to_patches=True,
                min_patches=1,
                max_patches=tiles,
                size={"height": height, "width": width},
                return_tensors="pt",
            )["pixel_values"]
            for image in images
        ]
        start, end = self.picture_ends
        counts = [self.tokens_per_tile * len(pixels) for pixels in cut]
        marks = [f"{start}{self.image_token * count}{end}\n" for count in counts]
        return marks, {"pixel_values": torch.cat(cut)}
