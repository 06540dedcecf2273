"""References: multiples of 16, nothing cropped, nothing zoomed, placed where FLUX places them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from squeeze_core.errors import SqueezeError
from squeeze_core.references import (
    NEUTRAL,
    ReferencePicture,
    References,
    chained,
    encode,
    fit,
    long_sides,
    offsets,
    with_placement,
)

CORNERS = {(0, 0): (1.0, 0, 0), (0, -1): (0, 1.0, 0), (-1, 0): (0, 0, 1.0), (-1, -1): (1.0, 1.0, 0)}


def picture_with_corners(height: int, width: int, size: int) -> torch.Tensor:
    """White, with a patch of its own colour in each corner."""
    image = torch.ones(height, width, 3)
    for (row, column), colour in CORNERS.items():
        rows = slice(0, size) if row == 0 else slice(-size, None)
        columns = slice(0, size) if column == 0 else slice(-size, None)
        image[rows, columns] = torch.tensor(colour)
    return image


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 400), st.integers(8, 400), st.integers(16, 320), st.sampled_from(["resize", "pad"]))
def test_sides_are_multiples_of_16_and_the_long_one_is_as_asked(height, width, long_side, how):
    pixels = fit(ReferencePicture(torch.rand(height, width, 3), fit=how), long_side)
    _, rows, columns, channels = pixels.shape
    assert channels == 3 and rows % 16 == 0 and columns % 16 == 0
    assert max(rows, columns) == max(16, round(long_side / 16) * 16)
    assert pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize("how", ["resize", "pad"])
@pytest.mark.parametrize("height, width", [(300, 200), (100, 90), (97, 331), (64, 64), (512, 37)])
@pytest.mark.parametrize("long_side", [320, 500])
def test_a_picture_keeps_all_four_corners(how, height, width, long_side):
    image = picture_with_corners(height, width, size=max(4, min(height, width) // 4))
    pixels = fit(ReferencePicture(image, fit=how), long_side)[0]
    content = (pixels - NEUTRAL).abs().amax(-1) > 0.2  # padding is grey, the picture nowhere
    rows, columns = content.any(1).nonzero().flatten(), content.any(0).nonzero().flatten()
    box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for (row, column), colour in CORNERS.items():
        assert torch.allclose(box[row, column], torch.tensor(colour), atol=0.2), (row, column)


@pytest.mark.parametrize("height, width", [(300, 200), (200, 300), (97, 331), (512, 37)])
def test_padding_keeps_the_aspect_and_is_neutral(height, width):
    pixels = fit(ReferencePicture(torch.ones(height, width, 3), fit="pad"), 320)[0]
    white = (pixels > 0.99).all(-1)
    rows, columns = int(white.any(1).sum()), int(white.any(0).sum())
    assert max(rows, columns) == 320
    assert abs(rows - height * 320 / max(height, width)) <= 0.5
    assert abs(columns - width * 320 / max(height, width)) <= 0.5
    assert torch.equal(pixels[~white].unique(), torch.tensor([NEUTRAL]))


@pytest.mark.parametrize("height, width", [(300, 200), (100, 90), (97, 331)])
def test_resizing_moves_each_side_by_at_most_8_pixels(height, width):
    _, rows, columns, _ = fit(ReferencePicture(torch.rand(height, width, 3)), 320).shape
    assert abs(rows - height * 320 / max(height, width)) <= 8
    assert abs(columns - width * 320 / max(height, width)) <= 8


def test_a_picture_of_the_right_size_is_passed_through_bit_for_bit():
    image = torch.rand(320, 208, 3)
    for how in ("resize", "pad"):
        assert torch.equal(fit(ReferencePicture(image, fit=how), 320)[0], image)


def test_what_the_mask_leaves_out_becomes_neutral_grey_and_the_rest_stays():
    image, mask = torch.rand(64, 64, 3), torch.zeros(64, 64)
    mask[:, :32] = 1
    pixels = fit(ReferencePicture(image, mask), 64)[0]
    assert torch.equal(pixels[:, :32], image[:, :32])
    assert (pixels[:, 32:] == NEUTRAL).all()


def test_an_empty_mask_is_refused_and_the_sentence_says_why():
    with pytest.raises(SqueezeError, match="black everywhere"):
        ReferencePicture(torch.rand(8, 8, 3), torch.zeros(8, 8))


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (1, 8, 8), (8,)])
def test_a_mask_of_another_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(SqueezeError, match="mask"):
        ReferencePicture(torch.rand(8, 8, 3), torch.ones(*shape))
    with pytest.raises(SqueezeError, match=r"9 x 8 px.*10 x 8 px"):  # width first, as pictures are named
        ReferencePicture(torch.rand(8, 10, 3), torch.ones(8, 9))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_blank_mask_of_an_opaque_picture_is_named(value):
    """ComfyUI's Load Image gives it, black, and Invert Mask makes it white."""
    with pytest.raises(SqueezeError, match="leave mask unconnected"):
        ReferencePicture(torch.rand(300, 200, 3), torch.full((64, 64), value))
    with pytest.raises(SqueezeError, match="must be equal"):
        ReferencePicture(torch.rand(300, 200, 3), torch.eye(64))
    ReferencePicture(torch.rand(64, 64, 3), torch.ones(64, 64))


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 8), (1, 8, 8, 3), (0, 8, 3)])
def test_a_picture_that_is_not_rgb_is_refused_with_its_shape(shape):
    with pytest.raises(SqueezeError, match=r"\[height, width, 3\]"):
        ReferencePicture(torch.rand(*shape))


def test_the_automatic_long_side_is_512_alone_and_320_in_company():
    automatic = ReferencePicture(torch.rand(8, 8, 3))
    fixed = ReferencePicture(torch.rand(8, 8, 3), long_side=768)
    assert long_sides([automatic]) == [512]
    assert long_sides([automatic, automatic]) == [320, 320]
    assert long_sides([automatic, fixed]) == [320, 768]
    with pytest.raises(SqueezeError, match="16 px"):
        ReferencePicture(torch.rand(8, 8, 3), long_side=8)


def fake_vae(pixels: torch.Tensor) -> torch.Tensor:
    return pixels[:, ::8, ::8, :1].permute(0, 3, 1, 2).repeat(1, 16, 1, 1)


def test_encoding_returns_the_pixels_exactly_as_the_vae_saw_them():
    seen = []
    pictures = [ReferencePicture(torch.rand(100, 90, 3)), ReferencePicture(torch.rand(50, 70, 3), fit="pad")]
    references = encode(pictures, lambda pixels: seen.append(pixels) or fake_vae(pixels), "uxo")
    assert len(seen) == 2 and all(a is b for a, b in zip(seen, references.encoded))
    assert [tuple(latent.shape) for latent in references.latents] == [(1, 16, 40, 36), (1, 16, 30, 40)]
    assert references.placement == "uxo" and references.pictures == tuple(pictures)


def test_chained_references_are_encoded_together_because_their_sizes_depend_on_each_other():
    first, second = ReferencePicture(torch.rand(8, 8, 3)), ReferencePicture(torch.rand(8, 8, 3))
    alone = encode([first], fake_vae)
    assert alone.latents[0].shape[-1] == 64
    both = encode(chained(alone, [second]), fake_vae)
    assert both.pictures == (first, second) and [x.shape[-1] for x in both.latents] == [40, 40]
    assert chained(None, [first]) == (first,)
    with pytest.raises(SqueezeError, match="no pictures"):
        chained(References.of(alone.latents), [second])


def test_auto_placement_gives_way_and_a_chosen_one_stays():
    assert with_placement(References.of(()), "uxo").placement == "uxo"
    assert with_placement(References.of((), "index"), "uxo").placement == "index"


@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 16, 7, 8), (16, 8, 8), (1, 16, 2, 8, 8)])
def test_a_latent_of_odd_size_or_a_batch_is_refused_with_its_shape(shape):
    with pytest.raises(SqueezeError, match="even h"):
        References.of((torch.zeros(*shape),))


# Three references of 20 x 32, 32 x 20 and 10 x 10 patches beside a target of 64 x 48, worked by hand:
#   uxo: past the corner (64, 48), then past the rows and the columns of each one before.
#   offset (Kontext): the first at (0, 0) as 20 rows are fewer than 32 columns: (rows 20, columns 32) taken.
#     second: 32 + 20 rows against 20 + 32 columns is a tie, so below: row 20 -> taken (52, 32).
#     third: 10 + 52 rows against 10 + 32 columns: beside, column 32.
HAND = {
    "uxo": [(0, 64, 48), (0, 84, 80), (0, 116, 100)],
    "offset": [(1, 0, 0), (1, 20, 0), (1, 0, 32)],
    "auto": [(1, 0, 0), (1, 20, 0), (1, 0, 32)],
    "index": [(1, 0, 0), (2, 0, 0), (3, 0, 0)],
}


@pytest.mark.parametrize("placement", HAND)
def test_three_references_stand_where_a_hand_places_them(placement):
    sizes = [(20, 32), (32, 20), (10, 10)]
    assert offsets(sizes, (64, 48), placement) == HAND[placement]


def comfyui_offsets(latents: list[tuple[int, int]], target: tuple[int, int], method: str):
    """ComfyUI's Flux._forward and process_img, in latent pixels, patches of 2."""
    h = w = index = 0
    placed = []
    for ref_h, ref_w in latents:
        if method == "index":
            index, h_offset, w_offset = index + 1, 0, 0
        elif method == "uxo":
            index, h_offset, w_offset = 0, (target[0] + 1) // 2 * 2 + h, (target[1] + 1) // 2 * 2 + w
            h, w = h + ref_h, w + ref_w
        else:
            index, h_offset, w_offset = 1, 0, 0
            if ref_h + h > ref_w + w:
                w_offset = w
            else:
                h_offset = h
            h, w = max(h, ref_h + h_offset), max(w, ref_w + w_offset)
        placed.append((index, (h_offset + 1) // 2, (w_offset + 1) // 2))
    return placed


sides = st.integers(1, 64)


@given(
    st.lists(st.tuples(sides, sides), max_size=6),
    st.tuples(sides, sides),
    st.sampled_from(["uxo", "offset", "index"]),
)
def test_any_references_stand_where_comfyuis_flux_puts_them(sizes, target, placement):
    latents = [(2 * rows, 2 * columns) for rows, columns in sizes]
    expected = comfyui_offsets(latents, (2 * target[0], 2 * target[1]), placement)
    assert offsets(sizes, target, placement) == expected


def test_a_long_side_far_above_the_pictures_own_is_warned_of(caplog):
    small = ReferencePicture(torch.rand(64, 64, 3), long_side=512)
    encode([small], lambda pixels: torch.zeros(1, 16, pixels.shape[1] // 8, pixels.shape[2] // 8))
    assert "64 px" in caplog.text and "512 px" in caplog.text
    caplog.clear()
    encode([ReferencePicture(torch.rand(64, 64, 3), long_side=128)], lambda p: torch.zeros(1, 16, 16, 16))
    assert not caplog.text
