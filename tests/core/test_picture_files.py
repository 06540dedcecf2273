"""Picture and mask files as other programs write them: the right values, or one sentence."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw

from squeeze_core.errors import SqueezeError
from squeeze_core.files import whole
from squeeze_core.images import as_rgb, mask_to_tensor, on_white
from squeeze_core.picture_files import UnreadablePicture, decode, read_mask, read_picture

HALF = np.zeros((64, 64))
HALF[16:48, 16:48] = 1  # the subject is the square
SOFT = HALF * 0.75 + (1 - HALF) * 0.25


def _jpeg(tag: int, kind: int, count: int, data: bytes) -> bytes:
    """A JPEG of 64 x 48 with orientation 6, red at its top, and one odd entry beside it."""
    entries = sorted([(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, count, data)])
    at, ifd, extra = 8 + 2 + 12 * 2 + 4, struct.pack("<H", 2), b""
    for t, k, n, d in entries:
        if len(d) > 4:
            ifd += struct.pack("<HHII", t, k, n, at + len(extra))
            extra += d
        else:
            ifd += struct.pack("<HHI", t, k, n) + d.ljust(4, b"\0")
    picture = Image.new("RGB", (64, 48), "green")
    ImageDraw.Draw(picture).rectangle((0, 0, 63, 10), fill="red")
    out = io.BytesIO()
    picture.save(out, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + ifd + struct.pack("<I", 0) + extra)
    return out.getvalue()


ODD = {
    "a text as resolution": _jpeg(0x011A, 2, 8, b"72/1dpi\0"),
    "a text as directory": _jpeg(330, 2, 8, b"unknown\0"),
    "a text as Exif directory": _jpeg(0x8769, 2, 8, b"unknown\0"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_entry_of_the_camera_changes_nothing_about_orientation(name: str, tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(ODD[name])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (48, 64)
    red = picture.getpixel((47, 32))
    assert red[0] > 200 and red[1] < 60  # type: ignore[index]
    assert not picture.getexif()  # nobody turns it twice


def test_an_orientation_that_cannot_be_read_counts_as_upright() -> None:
    data = _jpeg(0x011A, 2, 8, b"72/1dpi\0").replace(
        struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHIHH", 0x0112, 3, 1, 60000, 0)
    )
    assert decode(data, "a.jpg").size == (64, 48)
    as_text = data.replace(
        struct.pack("<HHIHH", 0x0112, 3, 1, 60000, 0), struct.pack("<HHI", 0x0112, 2, 3) + b"ab\0\0"
    )
    assert decode(as_text, "a.jpg").size == (64, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation: int) -> None:
    from PIL import ImageOps

    picture = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    picture.save(out, "PNG", exif=exif)
    mine = decode(out.getvalue(), "a.png")
    assert np.array_equal(np.asarray(mine), np.asarray(ImageOps.exif_transpose(Image.open(out))))


def _rgba(colour: int, alpha: np.ndarray) -> Image.Image:
    channels = [np.full((64, 64), colour), *[np.full((64, 64), colour)] * 2, alpha * 255]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


MASKS = {
    "16-bit": (Image.fromarray((SOFT * 65535).astype("uint16")), SOFT),
    "float": (Image.fromarray(SOFT.astype(np.float32)), SOFT),
    "grey levels as float": (Image.fromarray((SOFT * 255).astype(np.float32)), SOFT),
    "8-bit": (Image.fromarray((SOFT * 255).round().astype(np.uint8)), SOFT),
    "0 and 1": (Image.fromarray(HALF.astype(np.uint8)), HALF),
    "0 and 1 of 16 bits": (Image.fromarray(HALF.astype(np.uint16)), HALF),
    "1-bit": (Image.fromarray(HALF.astype(bool)), HALF),
    "black, shape in alpha": (_rgba(0, SOFT), SOFT),
    "white, shape in alpha": (_rgba(255, SOFT), SOFT),
    "opaque grey": (Image.fromarray((SOFT * 255).round().astype(np.uint8)).convert("RGBA"), SOFT),
    "CMYK": (Image.fromarray((SOFT * 255).round().astype(np.uint8)).convert("RGB").convert("CMYK"), SOFT),
    "grey palette": (Image.fromarray((SOFT * 255).round().astype(np.uint8)).convert("P"), SOFT),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_kind_has_its_values(kind: str, tmp_path) -> None:
    mask, right = MASKS[kind]
    assert np.abs(mask_to_tensor(mask).numpy() - right).max() < 0.011
    suffix = ".tif" if mask.mode in ("F", "CMYK") else ".png"
    mask.save(tmp_path / f"mask{suffix}")
    read = read_mask(tmp_path / f"mask{suffix}")
    assert read.mode == "L"
    assert np.abs(np.asarray(read) / 255 - right).max() < 0.011


AMBIGUOUS = {
    "10 or 12 bits": Image.fromarray((SOFT * 4095).astype("uint16")),
    "several things": Image.fromarray((HALF * 2).astype(np.uint8)),
    "in colour": Image.merge("RGB", [Image.fromarray((SOFT * 255 * c).astype(np.uint8)) for c in (1, 0.2, 0)]),
    "its transparency both": Image.merge(
        "RGBA", [*[Image.fromarray((SOFT.T[::-1] * 255).astype(np.uint8)).rotate(20)] * 3, MASKS["8-bit"][0]]
    ),
    "what is white": Image.fromarray((HALF * 2 - 1).astype(np.float32)),
}


@pytest.mark.parametrize("reason", AMBIGUOUS)
def test_a_mask_that_could_mean_two_things_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(SqueezeError, match=reason):
        mask_to_tensor(AMBIGUOUS[reason])


def test_pictures_of_wide_types_keep_their_range(tmp_path, capsys) -> None:
    for values in ((SOFT * 65535).astype("uint16"), (SOFT * 255).astype(np.float32), SOFT.astype(np.float32)):
        rgb = np.asarray(as_rgb(Image.fromarray(values))).astype(int)
        assert rgb.shape == (64, 64, 3)
        assert np.abs(rgb[..., 0] - SOFT * 255).max() <= 1
    Image.fromarray((SOFT * 4095).astype("uint16")).save(tmp_path / "dark.png")
    read_picture(tmp_path / "dark.png")
    assert "10 or 12 bits" in capsys.readouterr().err
    with pytest.raises(SqueezeError, match="what is white cannot be told"):
        as_rgb(Image.fromarray((SOFT * 1e6).astype(np.float32)))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_one_sentence_whatever_pillow_raises(tmp_path) -> None:
    out = io.BytesIO()
    Image.fromarray((SOFT * 255).astype(np.uint8)).save(out, "PNG")
    png = out.getvalue()
    out = io.BytesIO()
    Image.fromarray((SOFT * 255).astype(np.uint8)).save(out, "TIFF")
    tiff = out.getvalue()
    rng = np.random.default_rng(0)
    refused = 0
    for whole_file in (png, tiff):
        for _ in range(150):
            damaged = bytearray(whole_file[: rng.integers(4, len(whole_file) + 1)])
            for place in rng.integers(0, len(damaged), 3):
                damaged[place] = rng.integers(256)
            try:
                decode(bytes(damaged), "a.png")
            except UnreadablePicture as error:
                refused += 1
                assert error.reason and "\n" not in str(error)
    assert refused > 50


def test_tensors_of_one_channel_become_three_and_of_two_are_refused() -> None:
    import torch

    grey = torch.rand(1, 8, 8, 1)
    assert torch.equal(on_white(grey)[..., 2], grey[..., 0])
    with pytest.raises(SqueezeError, match="2 channels"):
        on_white(torch.rand(8, 8, 2))


def test_a_file_is_written_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "folder" / "a.txt"
    with whole(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(KeyboardInterrupt), whole(path) as temporary:
        temporary.write_text("second")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
