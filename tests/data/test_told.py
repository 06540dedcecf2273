"""Texts and described pictures: what stage 0 learns from."""

import json

import pytest
from PIL import Image

from squeeze_core.data import texts
from squeeze_core.data.told import CAPTIONS, NO_PROMPT, PictureFolder, Texts
from squeeze_core.errors import SqueezeError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_a_line_without_blank_ones(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes("a dog\r\n\n  ein Hündchen \u2028 am Meer\n".encode(encoding))
    assert texts.read_texts(path) == ["a dog", "ein Hündchen \u2028 am Meer"]
    told = Texts(path)[1]
    assert told.prompt == told.words == "ein Hündchen \u2028 am Meer" and told.prompt_at == 0 and not told.pictures


def test_a_column_of_json_lines(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a dog", "caption": "a cat"}\n\n{"text": "\\ud83d", "caption": "b"}\n')
    assert texts.read_texts(path) == ["a dog", "?"] and texts.read_texts(path, "caption") == ["a cat", "b"]


def test_a_column_of_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({"text": ["a dog", None, "a cat"], "n": [1, 2, 3]}), path)
    assert texts.read_texts(path) == ["a dog", "a cat"]
    with pytest.raises(SqueezeError, match="it has text, n"):
        texts.read_texts(path, "words")
    path.write_bytes(b"PAR1")
    with pytest.raises(SqueezeError, match="cannot be read as Parquet"):
        texts.read_texts(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"", "holds no text"),
        ("t.txt", b" \n\n", "holds no text"),
        ("t.txt", b"\x89PNG\r\n\x1a\n\x00", "no text in UTF-8"),
        ("t.txt", b"a\x00b", "binary"),
        ("t.txt", b"ok\n" + b"x" * 2**20, "Line 2 .* 1,048,576 characters"),
        ("t.csv", b"a,b", "Give .txt, .jsonl or .parquet"),
        ("t.jsonl", b'{"text": "a"}\n{"text"', "Line 2 .* no JSON"),
        ("t.jsonl", b'{"prompt": "a"}', 'no text "text" .it has prompt'),
        ("t.jsonl", b'["a"]', "it has list"),
    ],
)
def test_what_is_no_list_of_texts_is_said(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SqueezeError, match=said):
        texts.read_texts(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SqueezeError, match="There is no file"):
        texts.read_texts(tmp_path / "t.txt")


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a red\nsquare.")
    (tmp_path / CAPTIONS).write_text('{"picture": "b.png", "words": "a cube", "prompt": "it, in snow"}\n')
    return tmp_path


def test_words_beside_a_picture_or_in_one_file(folder):
    pictures = PictureFolder(folder)
    assert pictures.names == ("a.png", "b.png") and pictures.without_words == ("c.png",)
    a, b = pictures[0], pictures[1]
    assert (a.prompt, a.words, a.prompt_at) == (NO_PROMPT, "a red square", None)
    assert b.words == "a cube. it, in snow" and b.words[b.prompt_at :] == b.prompt == "it, in snow"
    assert a.words[slice(*a.shown)] == "a red square" and b.words[slice(*b.shown)] == "a cube"
    assert a.pictures[0].size == (32, 32)


def test_what_a_killed_process_left_unfinished_is_written_again(folder):
    with open(folder / CAPTIONS, "a") as file:
        file.write('{"picture": "c.png", "wor')
    pictures = PictureFolder(folder)
    assert pictures.without_words == ("c.png",)
    pictures.describe(lambda picture: "a thing")
    rows = [json.loads(line) for line in (folder / CAPTIONS).read_text().splitlines()]
    assert [row["picture"] for row in rows] == ["b.png", "c.png"]
    assert len(PictureFolder(folder)) == 3 and PictureFolder(folder).identity() == pictures.identity()


def test_a_picture_of_which_nothing_can_be_said_stays_without(folder, capsys):
    (folder / "d.png").write_bytes(b"no picture")
    pictures = PictureFolder(folder)
    pictures.describe(lambda picture: "a thing")
    assert pictures.without_words == ("d.png",) and "d.png stays without words" in capsys.readouterr().err


def test_a_folder_without_pictures_or_words_is_said(tmp_path):
    with pytest.raises(SqueezeError, match="There is no folder"):
        PictureFolder(tmp_path / "none")
    with pytest.raises(SqueezeError, match="holds no picture"):
        PictureFolder(tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(SqueezeError, match=r"None of the 1 pictures .*describe: true"):
        PictureFolder(tmp_path)
    assert len(PictureFolder(tmp_path, needed=False)) == 0
    (tmp_path / CAPTIONS).write_text('{"picture": "a.png"}\n')
    with pytest.raises(SqueezeError, match="Line 1"):
        PictureFolder(tmp_path)
