"""Label files as other tools write them, and examples that cannot be used."""

import json
import unicodedata

import pytest
from PIL import Image

from squeeze_core.data.archives import Archive
from squeeze_core.data.examples import ALWAYS_BORNE, Example, SourceFailure, Walk
from squeeze_core.data.labels import read_rows
from squeeze_core.data.sources.musar import MUSAR
from squeeze_core.data.sources.uno import UNO
from squeeze_core.data.store import Store
from squeeze_core.draws import Draws
from squeeze_core.errors import SqueezeError
from squeeze_core.mllm.backbone import Prompt
from squeeze_core.mllm.prompt import MOST_CHARACTERS, check_prompt

ROW = {"cond_img_0": "a.png", "cond_img_1": "b.png", "tgt_img": "é.png", "prompt": "one\u2028two"}


def write(folder, data: bytes):
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png", unicodedata.normalize("NFD", "é.png")):
        Image.new("RGB", (64, 64)).save(folder / name)
    (folder / "rows.jsonl").write_bytes(data)
    return folder


line = json.dumps(ROW, ensure_ascii=False)


@pytest.mark.parametrize(
    "data",
    [
        line.encode(),
        b"\xef\xbb\xbf" + line.encode(),
        line.encode("utf-16"),
        (line + "  \r\n\n").encode(),
    ],
    ids=["a line separator in a caption", "a byte order mark", "UTF-16", "blanks at the end"],
)
def test_labels_of_other_tools_are_read(tmp_path, data):
    examples = MUSAR(write(tmp_path / "d", data))
    assert len(examples) == 1 and examples[0].prompt == "one\u2028two"
    assert examples[0].target.size == (64, 64)  # composed in the labels, decomposed on the disk


def test_a_last_line_that_is_cut_off_is_named_and_left_out(tmp_path, capsys):
    folder = write(tmp_path / "d", (line + "\n" + line[:30]).encode())
    assert len(read_rows(Store(folder, "d"), "rows.jsonl")) == 1
    assert "last line" in capsys.readouterr().err
    (folder / "rows.jsonl").write_text(line[:30] + "\n" + line)
    with pytest.raises(SqueezeError, match="line 1"):
        read_rows(Store(folder, "d"), "rows.jsonl")


def test_absolute_paths_and_backslashes_are_found(tmp_path):
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 64)).save(folder / "sub" / name)
    rows = {
        "cond_img_0": str(folder / "sub" / "a.png"),
        "cond_img_1": "sub\\b.png",
        "tgt_img": "D:\\other\\machine\\sub\\c.png",
        "prompt": "two things",
    }
    (folder / "rows.jsonl").write_text(json.dumps(rows))
    assert MUSAR(folder)[0].name == "sub/c.png"


def test_unos_absolute_paths_are_found(tmp_path):
    split = tmp_path / "images" / "split1"
    split.mkdir(parents=True)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (64, 64)).save(split / name)
    row = {
        "img_path1": str(split / "1.png"),
        "img_path2": "split1\\2.png",
        "caption": {"img_path2": "a thing"},
        "vlm_filter_cot": {"score_final": 4},
    }
    (tmp_path / "uno_1m_total_labels.json").write_text(json.dumps([row]))
    assert len(UNO(tmp_path)) == 1 and UNO(tmp_path)[0].target.size == (64, 64)


@pytest.mark.parametrize("text", ["a" * (MOST_CHARACTERS + 1), json.loads('"a cat \\ud83d"')])
def test_a_prompt_that_no_model_reads_is_one_sentence(text):
    with pytest.raises(SqueezeError, match=r"characters|lone surrogate"):
        check_prompt(Prompt(text))


class Mixed:
    """A set whose first examples have captions that cannot be read."""

    def __init__(self, bad: int, count: int) -> None:
        self.bad, self.count = bad, count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        text = "a" * 80_000 if number < self.bad else "a cat"
        return Example(text, Image.new("RGB", (8, 8)), (), f"picture {number}")

    def identity(self):
        return "mixed"


def check(example):
    check_prompt(Prompt(example.prompt))


def test_a_bad_caption_is_named_and_left_out(capsys):
    walk = Walk([Mixed(1, 50)], [1], Draws(0), check)
    assert {walk.example(index).prompt for index in range(50)} == {"a cat"}
    assert list(walk.broken) == ["0/0"] and "picture 0" in capsys.readouterr().err


def test_more_than_a_small_share_of_bad_examples_ends_the_run(capsys):
    walk = Walk([Mixed(ALWAYS_BORNE + 1, 200)], [1], Draws(0), check)
    with pytest.raises(SourceFailure, match=f"more than {ALWAYS_BORNE}"):
        for index in range(200):
            walk.example(index)
    assert f"more than {ALWAYS_BORNE} end the run" in capsys.readouterr().err.splitlines()[0]  # before it ends


def test_an_archive_is_looked_through_once_where_no_notes_can_be_kept(tmp_path, monkeypatch, capsys):
    import tarfile

    import fsspec

    (tmp_path / "a.txt").write_text("a")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.txt", "x/a.txt")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr("squeeze_core.data.archives.cache_folder", lambda: blocked / "cache")
    archive = Archive(fsspec.filesystem("file"), str(tmp_path / "x.tar"))
    assert archive.read("x/a.txt") == archive.read("x/a.txt") == b"a"
    said = capsys.readouterr().err
    assert said.count("looking through") == 1 and said.count("not noted") == 1
