import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from squeeze_core.data.buckets import buckets, fitted, nearest
from squeeze_core.data.examples import BrokenExample
from squeeze_core.data.pictures import read_rgb


def test_the_buckets_of_512_have_its_area_and_fit_the_vae():
    sizes = buckets(512)
    assert (512, 512) in sizes and len(sizes) > 15
    for height, width in sizes:
        assert height % 16 == width % 16 == 0
        assert 0.9 * 512**2 < height * width <= 512**2
        assert 0.5 <= height / width <= 2
    assert {(width, height) for height, width in sizes} & set(sizes)


@given(st.integers(64, 3000), st.integers(64, 3000))
@settings(max_examples=60, deadline=None)
def test_a_picture_goes_to_the_bucket_of_the_nearest_aspect(height, width):
    chosen = nearest(height, width, 512)
    aspect = math.log(height / width)
    distance = abs(math.log(chosen[0] / chosen[1]) - aspect)
    assert all(distance <= abs(math.log(h / w) - aspect) + 1e-12 for h, w in buckets(512))


def test_square_pictures_go_to_the_square():
    assert nearest(1024, 1024, 512) == (512, 512) and nearest(100, 100, 128) == (128, 128)


@given(st.integers(20, 300), st.integers(20, 300), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_what_is_cut_out_has_the_size_asked_for_and_lies_inside(height, width, down, right):
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    found = fitted(picture, (64, 96), (down, right))
    assert found.size == (96, 64) and np.asarray(found).min() > 250  # nothing from outside, which would be black


def test_the_crop_moves_from_one_end_to_the_other():
    picture = Image.fromarray(np.tile(np.arange(128, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    ends = [np.asarray(fitted(picture, (64, 64), (0.5, right)))[0, :, 0] for right in (0.0, 0.5, 1.0)]
    assert [(end[0], end[-1]) for end in ends] == [(0, 63), (32, 95), (64, 127)]


def test_a_fitting_picture_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (np.asarray(fitted(Image.fromarray(pixels), (64, 64))) == pixels).all()


def test_pictures_are_read_as_rgb_on_white_and_turned_as_the_camera_says(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_rgb(tmp_path / "clear.png").getpixel((5, 5)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (60, 40), 128).save(tmp_path / "turned.jpg", exif=exif)
    turned = read_rgb(tmp_path / "turned.jpg")
    assert turned.size == (40, 60) and turned.mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BrokenExample, match=r"x\.png"):
        read_rgb(tmp_path / "x.png")
    with pytest.raises(BrokenExample, match=r"y\.png"):
        read_rgb(tmp_path / "y.png")
    Image.new("RGB", (40, 8)).save(tmp_path / "small.png")
    with pytest.raises(BrokenExample, match="only 40 x 8"):
        read_rgb(tmp_path / "small.png")
