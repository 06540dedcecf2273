"""Reference pictures: from pixels to VAE latents, and where their tokens stand in the DiT's sequence.

The way of a picture: `ReferencePicture` (pixels and mask as given) -> `fit` (its encoded size, never cropped)
-> the VAE -> `References` (latents and placement) -> `offsets` (rotary positions beside the target).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange

from .attention.regions import Region
from .attention.rules import ReferenceRule, check_strength
from .errors import SqueezeError
from .windows import ALWAYS, check_window

Placement = Literal["auto", "uxo", "offset", "index"]
Attention = Literal["joint", "cached"]
Fit = Literal["resize", "pad"]

MULTIPLE = 16  # pixels: the VAE takes 8 and FLUX's patches 2; anything else is cropped or padded silently
LONG_SIDE_ONE = 512  # UNO's sizes: one reference
LONG_SIDE_SEVERAL = 320  # several references
FLUX_CHANNELS = 16  # of FLUX.1's latents
MOST_ENLARGED = 4  # times; beyond it a long side that was asked for is warned of
NEUTRAL = 0.5  # mid grey: zero after the VAE's scaling of pixels to -1 .. 1


@dataclass(frozen=True)
class ReferencePicture:
    """A picture of a subject as the user gave it.

    image: [height, width, 3] float, 0 to 1. mask: [height, width] float, 1 at the subject, or None.
    long_side: pixels of the longer side as encoded; 0 chooses 512 for a lone reference, 320 for several.
    strength, start, end, region: how it is to be heard, see `Reference`.
    """

    image: torch.Tensor
    mask: torch.Tensor | None = None
    long_side: int = 0
    fit: Fit = "resize"
    strength: float = 1.0
    start: float = ALWAYS[0]
    end: float = ALWAYS[1]
    region: Region | None = None

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_window(self.start, self.end)
        if self.image.ndim != 3 or self.image.shape[-1] != 3 or 0 in self.image.shape:
            raise SqueezeError(
                f"A reference picture must be [height, width, 3]; got {list(self.image.shape)}. "
                "Remove the alpha channel, or use it as the mask."
            )
        if self.long_side and self.long_side < MULTIPLE:
            raise SqueezeError(
                f"The long side is {self.long_side} px; give at least {MULTIPLE} px, or 0 for automatic."
            )
        if self.fit not in get_args(Fit):
            raise SqueezeError(f'fit is "{self.fit}"; choose one of {", ".join(get_args(Fit))}.')
        if self.mask is None:
            return
        if self.mask.ndim != 2:
            raise SqueezeError(
                f"A mask must be [height, width]; got {list(self.mask.shape)}. Give one mask for each picture."
            )
        blank = self.mask.shape == (64, 64) and self.mask.min() == self.mask.max()
        if blank and self.image.shape[:2] != (64, 64):
            raise SqueezeError(
                "The mask is blank. ComfyUI gives a picture without transparency a blank 64 x 64 mask: leave mask "
                "unconnected."
            )
        if self.mask.shape != self.image.shape[:2]:
            raise SqueezeError(
                "The mask is {1} x {0} px and the picture {3} x {2} px; they must be equal.".format(
                    *self.mask.shape, *self.image.shape[:2]
                )
                + " Make the mask from this very picture."
            )
        if not self.mask.any():
            raise SqueezeError(
                "The mask is black everywhere, so nothing of the subject would be left. White marks the "
                "subject; ComfyUI loads an opaque picture with a black mask: leave that unconnected."
            )


@dataclass(frozen=True)
class Reference:
    """One encoded reference, and how it is heard.

    latent: [1, channels, h, w], a raw VAE latent (the model scales it), h and w even where it is FLUX.1's; or
        [1, channels, 1, h, w] of a VAE for video, such as Qwen-Image's.
    strength: multiplies the odds of attending to it; 1 as trained, 2 as if given twice, 0 not at all.
    start, end: sigmas; it is heard while end <= sigma < start, within the gate's stages.
    region: where in the picture it acts; picture tokens outside do not see it. None: everywhere.
    picture: what the latent was made of; None when unknown. pixels: [1, H, W, 3] exactly as the VAE saw them.
    """

    latent: torch.Tensor
    strength: float = 1.0
    start: float = ALWAYS[0]
    end: float = ALWAYS[1]
    region: Region | None = None
    picture: ReferencePicture | None = None
    pixels: torch.Tensor | None = None

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_window(self.start, self.end)
        latent = self.latent
        still = latent.ndim == 5 and latent.shape[2] == 1
        paired = latent.ndim == 4 and latent.shape[1] == FLUX_CHANNELS  # FLUX.1 makes tokens of 2 x 2
        odd = paired and (latent.shape[-1] % 2 or latent.shape[-2] % 2)
        if not (latent.ndim == 4 or still) or latent.shape[0] != 1 or odd:
            raise SqueezeError(
                "A reference latent must be [1, channels, even h, even w], or [1, channels, 1, h, w] of a VAE for "
                f"video; got {list(latent.shape)}. "
                "Give every reference as a latent of its own."
            )

    @property
    def window(self) -> tuple[float, float]:
        return self.start, self.end

    def rule(self, owner: int = 0) -> ReferenceRule:
        """What attention is asked for it."""
        return ReferenceRule(owner, self.strength, self.region)


@dataclass(frozen=True)
class References:
    """Encoded reference pictures, ready for the DiT.

    placement: "auto" leaves it to the adapter or the model; "uxo" sets index 0 and rows and columns past the
        target's corner, cumulative (UNO, USO, DreamO); "offset" index 1, tiled (Kontext); "index" 1, 2, 3 ...
    attention: "joint": the tokens join the sequence, as in UNO and Kontext.
    """

    items: tuple[Reference, ...]
    placement: Placement = "auto"
    attention: Attention = "joint"

    def __post_init__(self) -> None:
        if self.placement not in get_args(Placement):
            raise SqueezeError(
                f'The placement is "{self.placement}"; choose one of {", ".join(get_args(Placement))}.'
            )
        if self.attention not in get_args(Attention):
            raise SqueezeError(
                f'The attention is "{self.attention}"; choose one of {", ".join(get_args(Attention))}.'
            )

    @classmethod
    def of(cls, latents: Sequence[torch.Tensor], placement: Placement = "auto") -> References:
        """Latents alone, heard as trained."""
        return cls(tuple(map(Reference, latents)), placement)

    @property
    def latents(self) -> tuple[torch.Tensor, ...]:
        return tuple(item.latent for item in self.items)

    @property
    def pictures(self) -> tuple[ReferencePicture, ...]:
        """What the latents were made of, as far as that is known."""
        return tuple(item.picture for item in self.items if item.picture is not None)

    @property
    def encoded(self) -> tuple[torch.Tensor, ...]:
        """Pixels as the VAE saw them, as far as they are known."""
        return tuple(item.pixels for item in self.items if item.pixels is not None)


def long_sides(pictures: Sequence[ReferencePicture]) -> list[int]:
    """The long side of each picture in pixels: its own, else 512 when it is alone and 320 otherwise."""
    automatic = LONG_SIDE_ONE if len(pictures) == 1 else LONG_SIDE_SEVERAL
    return [picture.long_side or automatic for picture in pictures]


def fit(picture: ReferencePicture, long_side: int) -> torch.Tensor:
    """The pixels that the VAE will see: [1, H, W, 3], H and W multiples of 16, nothing cropped.

    "resize" brings both sides to multiples of 16, which changes the aspect by at most 8 px a side; "pad"
    keeps the aspect and fills up with neutral grey. What the mask leaves out becomes the same grey.
    """
    image = rearrange(picture.image.to(torch.float32), "h w c -> 1 c h w")
    if picture.mask is not None:
        mask = rearrange(picture.mask.to(image), "h w -> 1 1 h w").clamp(0, 1)
        image = image * mask + NEUTRAL * (1 - mask)
    height, width = image.shape[-2:]
    scale = _rounded(long_side) / max(height, width)
    if picture.fit == "resize":
        image = _resize(image, _rounded(height * scale), _rounded(width * scale))
    else:
        image = _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
        image = _pad(image)
    return rearrange(image, "1 c h w -> 1 h w c").contiguous()


def encode(
    pictures: Sequence[ReferencePicture],
    vae_encode: Callable[[torch.Tensor], torch.Tensor],
    placement: Placement = "auto",
) -> References:
    """Fit every picture and encode it.

    vae_encode: [1, H, W, 3] pixels, 0 to 1 -> raw latents as `Reference` takes them.
    """
    items = []
    for number, (picture, side) in enumerate(zip(pictures, long_sides(pictures)), start=1):
        own = max(picture.image.shape[:2])
        if picture.long_side > MOST_ENLARGED * own:
            logging.warning(
                "Squeeze: reference %d of %d px is enlarged to a long side of %d px, which costs tokens and adds "
                "nothing; %d would do.",
                *(number, own, side, max(own, MULTIPLE)),
            )
        pixels = fit(picture, side)
        how = (picture.strength, picture.start, picture.end, picture.region)
        items.append(Reference(vae_encode(pixels), *how, picture, pixels))
    return References(tuple(items), placement)


def chained(earlier: References | None, pictures: Sequence[ReferencePicture]) -> tuple[ReferencePicture, ...]:
    """The earlier references' pictures followed by new ones, to be encoded together.

    Together, because the automatic long side depends on how many there are. Raises `SqueezeError` when the
    earlier ones come without their pictures.
    """
    if earlier is None:
        return tuple(pictures)
    if len(earlier.pictures) != len(earlier.latents):
        raise SqueezeError("These references carry no pictures, so no more can be chained to them.")
    return (*earlier.pictures, *pictures)


def with_placement(references: References, placement: Placement) -> References:
    """The same references, "auto" replaced by the given placement."""
    return replace(references, placement=placement) if references.placement == "auto" else references


def offsets(
    sizes: Sequence[tuple[int, int]], target: tuple[int, int], placement: Placement
) -> list[tuple[int, int, int]]:
    """Where each reference's first token stands: (index, row, column), in patches.

    sizes, target: (rows, columns) of patches. "auto" is FLUX's default, "offset". The rules are those of the
    models that were trained with them, as ComfyUI's FLUX places them too.
    """
    placed = []
    row = column = 0
    for number, (rows, columns) in enumerate(sizes, start=1):
        if placement == "uxo":
            placed.append((0, target[0] + row, target[1] + column))
            row, column = row + rows, column + columns
        elif placement == "index":
            placed.append((number, 0, 0))
        else:  # tiled: beside or below what is there, whichever keeps the tiling squarer
            down, right = (0, column) if rows + row > columns + column else (row, 0)
            placed.append((1, down, right))
            row, column = max(row, rows + down), max(column, columns + right)
    return placed


def _rounded(pixels: float) -> int:
    return max(MULTIPLE, round(pixels / MULTIPLE) * MULTIPLE)


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def _pad(image: torch.Tensor) -> torch.Tensor:
    down, right = -image.shape[-2] % MULTIPLE, -image.shape[-1] % MULTIPLE
    top, left = down // 2, right // 2
    return F.pad(image, (left, right - left, top, down - top), value=NEUTRAL)


def check_masks(pictures: int, masks: int | None) -> None:
    """masks: None for none at all. Raises `SqueezeError` unless there is one for each picture."""
    if masks is not None and masks != pictures:
        raise SqueezeError(
            f"There are {pictures} reference pictures and {masks} masks. Give one mask for each picture."
        )
