"""Bad pictures are reported by name, and the rest is scored."""

import numpy as np
import pytest
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.pictures import find, read
from squeeze_core.files import file_hash

from . import models as tiny


def kinds(path):
    picture, problems = read(path)
    return picture, [problem.kind for problem in problems]


def test_a_plain_picture_has_no_problem(tmp_path):
    tiny.picture(0).save(tmp_path / "a.png")
    picture, found = kinds(tmp_path / "a.png")
    assert found == [] and np.array_equal(picture, tiny.picture(0))


@pytest.mark.parametrize("contents", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_cannot_be_read_is_named_and_gives_no_picture(tmp_path, contents):
    (tmp_path / "broken.png").write_bytes(contents)
    picture, problems = read(tmp_path / "broken.png")
    assert picture is None
    assert [(p.file, p.kind, p.scored) for p in problems] == [("broken.png", "unreadable", False)]
    assert str(tmp_path) not in str(problems[0])


def test_a_truncated_jpeg_is_unreadable(tmp_path):
    tiny.picture(0, 300, 200).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    assert kinds(tmp_path / "half.jpg") == (None, ["unreadable"])


def test_tiny_pictures_are_not_scored(tmp_path):
    tiny.picture(0, 31, 200).save(tmp_path / "a.png")
    tiny.picture(0, 32, 200).save(tmp_path / "b.png")
    assert kinds(tmp_path / "a.png") == (None, ["tiny"])
    assert kinds(tmp_path / "b.png")[1] == []


def test_grey_and_cmyk_are_converted_and_said(tmp_path):
    tiny.picture(0).convert("L").save(tmp_path / "grey.png")
    picture, found = kinds(tmp_path / "grey.png")
    assert found == ["grey"] and picture.mode == "RGB"
    tiny.picture(0).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    picture, found = kinds(tmp_path / "cmyk.jpg")
    assert found == ["cmyk"]
    assert np.abs(np.asarray(picture, int) - np.asarray(tiny.picture(0), int)).mean() < 8  # no inverted colours


def test_sixteen_bits_become_eight_and_not_white(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    picture, found = kinds(tmp_path / "deep.png")
    assert set(found) == {"grey", "16-bit"}
    expected = values.astype(float) / 65535 * 255
    assert np.abs(np.asarray(picture)[..., 0] - expected).max() <= 1


def test_sixteen_bit_colour_is_noticed(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 30000, 0) * 40 for _ in range(40))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 40, 40, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(data)
    picture, found = kinds(tmp_path / "deep.png")
    assert found == ["16-bit"] and picture.getpixel((0, 0)) == (255, 117, 0)


def test_transparency_is_put_on_white_and_said(tmp_path):
    Image.new("RGBA", (40, 40), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    picture, found = kinds(tmp_path / "clear.png")
    assert found == ["alpha"] and picture.getpixel((5, 5)) == (255, 255, 255)


def test_of_several_frames_the_first_is_scored(tmp_path):
    frames = [tiny.picture(i) for i in range(2)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    picture, found = kinds(tmp_path / "a.webp")
    assert found == ["animated"] and np.array_equal(picture, frames[0])


def test_a_cameras_preview_behind_the_picture_is_no_second_frame(tmp_path):
    tiny.picture(0).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[tiny.picture(1, 40, 30)])
    picture, found = kinds(tmp_path / "a.jpg")
    assert found == [] and picture.size == tiny.picture(0).size


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SqueezeError, match="nowhere"):
        find(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SqueezeError, match="holds no pictures"):
        find(tmp_path)


def test_hidden_and_half_written_files_are_left_out(tmp_path):
    (tmp_path / ".cache").mkdir()
    for name in (".a.png", ".cache/b.png", "c.PNG"):
        tiny.picture(0).save(tmp_path / name, format="png")
    assert [path.name for path in find(tmp_path)] == ["c.PNG"]


def test_the_hash_is_the_files(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea")
