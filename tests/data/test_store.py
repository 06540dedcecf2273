"""Data sets that nobody unpacked, and data sets far away: the same examples, in the same order."""

import json
import shutil
import tarfile
from itertools import product

import fsspec
import pytest

from squeeze_core.data import archives, store
from squeeze_core.data.examples import SourceFailure, Walk
from squeeze_core.data.sources.musar import MUSAR
from squeeze_core.data.sources.uno import UNO
from squeeze_core.data.store import Store
from squeeze_core.draws import Draws
from squeeze_core.errors import SqueezeError

from . import pictures

ROWS = [pictures.uno_row(number, split=f"split{1 + number % 2}") for number in range(8)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "squeeze-mllm" / "archives"


def packed(folder, ending, prefix=""):
    """The splits of an extracted UNO-1M as archives, the folders gone."""
    for split in ("split1", "split2"):
        path = folder / "images" / f"{split}{ending}"
        with tarfile.open(path, "w" if ending == ".tar" else "w:gz") as archive:
            archive.add(folder / "images" / split, f"{prefix}{split}")
        shutil.rmtree(folder / "images" / split)
    return folder


def shown(data):
    return [
        (data[i].prompt, data[i].name, data[i].target.tobytes(), data[i].references[0].tobytes())
        for i in range(len(data))
    ]


@pytest.mark.parametrize(("ending", "prefix"), product(archives.ENDINGS, ("", "./", "images/")))
def test_archives_give_the_examples_of_the_unpacked_folder(tmp_path, ending, prefix):
    folder = pictures.uno(tmp_path / "uno", ROWS)
    expected, identity = shown(UNO(folder)), UNO(folder).identity()
    data = UNO(packed(folder, ending, prefix))
    assert shown(data) == expected
    assert data.identity() == identity  # a run may go on after the archives are unpacked


def test_an_archive_is_looked_through_once(tmp_path, cache, capsys):
    folder = packed(pictures.uno(tmp_path / "uno", ROWS), ".tar.gz")
    expected = shown(UNO(folder))
    assert capsys.readouterr().err.count("looking through") == 2
    assert shown(UNO(folder)) == expected and "looking through" not in capsys.readouterr().err
    for path in cache.glob("*.gzidx"):
        path.write_bytes(path.read_bytes()[:100])  # half a note is no note
    assert shown(UNO(folder)) == expected


def test_an_archive_that_was_replaced_is_looked_through_again(tmp_path):
    folder = packed(pictures.uno(tmp_path / "uno", ROWS), ".tar")
    before = shown(UNO(folder))
    repainted = [dict(row, vlm_filter_cot={"score_final": 4.0}) for row in ROWS[:2]]
    other = pictures.uno(tmp_path / "other", [*repainted, *ROWS[2:], pictures.uno_row(50)])
    packed(other, ".tar")
    shutil.copytree(other / "images", folder / "images", dirs_exist_ok=True)
    shutil.copy(other / "uno_1m_total_labels.json", folder)
    assert shown(UNO(folder)) == [*before, *shown(UNO(other))[8:]]


def test_a_broken_archive_is_named(tmp_path):
    folder = packed(pictures.uno(tmp_path / "uno", ROWS), ".tar.gz")
    path = folder / "images" / "split2.tar.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceFailure, match=r"split2\.tar\.gz.*broken"):
        UNO(folder)[1]


def test_a_picture_that_an_archive_lacks_counts_as_broken(tmp_path):
    folder = pictures.uno(tmp_path / "uno", ROWS)
    (folder / "images" / "split1" / "0_2.png").unlink()
    walk = Walk([UNO(packed(folder, ".tar"))], [1], Draws(0))
    names = {walk.example(index).name for index in range(8)}
    assert len(names) == 7 and "holds no" in next(iter(walk.broken.values()))


def put(folder, address):
    fs, root = fsspec.core.url_to_fs(address)
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def far():
    yield "memory://far/uno"
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.mark.parametrize("ending", [None, ".tar", ".tar.gz"])
def test_a_data_set_at_an_address_gives_the_examples_of_the_folder(tmp_path, far, ending):
    folder = pictures.uno(tmp_path / "uno", ROWS, by_split=True)
    expected = shown(UNO(folder))
    put(packed(folder, ending) if ending else folder, far)
    assert shown(UNO(far)) == expected


def test_musar_is_streamed_too(tmp_path, far):
    folder = tmp_path / "musar"
    names = {name: f"pictures/{name}.png" for name in ("cond_img_0", "cond_img_1", "tgt_img")}
    for number, name in enumerate(names.values()):
        pictures.picture(folder / name, (10 * number, 0, 0))
    (folder / "rows.jsonl").write_text(json.dumps({**names, "prompt": "both"}))
    put(folder, far)
    example = MUSAR(far)[0]
    assert example.prompt == "both" and example.target.getpixel((0, 0)) == (20, 0, 0)
    assert [picture.getpixel((0, 0))[0] for picture in example.references] == [0, 10]


def test_a_network_that_fails_for_a_moment_is_asked_again(tmp_path, far, monkeypatch):
    put(pictures.uno(tmp_path / "uno", ROWS), far)
    data, waits = UNO(far), []
    failures = iter([TimeoutError("slow"), ConnectionResetError("gone")])
    read = data.store._fs.cat_file

    def flaky(*args, **kwargs):
        for error in failures:
            raise error
        return read(*args, **kwargs)

    monkeypatch.setattr(store.time, "sleep", waits.append)
    monkeypatch.setattr(data.store._fs, "cat_file", flaky)
    assert data[3].prompt == "second 3" and waits == [2.0, 4.0]


def test_a_network_that_stays_away_stops_the_run_and_skips_nothing(tmp_path, far, monkeypatch):
    put(pictures.uno(tmp_path / "uno", ROWS), far)
    walk = Walk([UNO(far)], [1], Draws(0))

    def gone(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(walk.sources[0].store._fs, "cat_file", gone)
    with pytest.raises(SourceFailure, match=r"no route.*--resume"):
        walk.example(0)
    assert not walk.broken


def test_an_address_that_nothing_can_open_is_refused():
    with pytest.raises(SqueezeError, match="hf://datasets"):
        Store("nosuch://somewhere", "UNO-1M")
