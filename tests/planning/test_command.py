"""`squeeze plan` as a user has it."""

import json
import sys

import pytest
from PIL import Image

from squeeze_core import cli, toyworld
from squeeze_core.planning.files import read_plans

PROMPT = "a photo of the toy of picture 1 left of the toy of picture 2, on a beach"


@pytest.fixture
def squeeze(monkeypatch, capfd):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squeeze", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capfd.readouterr()
        return leaving.value.code or 0, out, err

    return run


@pytest.fixture
def references(tmp_path):
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path in paths:
        Image.new("RGB", (48, 48), path.stem).save(path)
    return [part for path in paths for part in ("--reference", path)]


def test_the_rule_writes_a_plan_and_its_picture_and_nothing_else(squeeze, references, tmp_path):
    out = tmp_path / "new" / "plan.json"
    status, written, _ = squeeze("plan", *references, "--prompt", PROMPT, "--size", "small", "--out", out)
    assert status == 0 and written.split() == [str(out), str(out.with_suffix(".png"))]
    (plan,) = read_plans(out)
    assert [str(relation) for relation in plan.relations] == ["1 left of 2"]
    assert plan.subjects[1].caption == "a photo of the small toy, on the right, on a beach"
    assert list(json.loads(out.read_text(encoding="utf-8"))) == ["plans"]
    assert Image.open(out.with_suffix(".png")).width > 200
    assert sorted(path.name for path in out.parent.iterdir()) == ["plan.json", "plan.png"]


def test_an_mllm_writes_several_plans_the_best_first(squeeze, references, tmp_path):
    mllm, out = toyworld.build(tmp_path / "world").mllm, tmp_path / "plan.json"
    options = ("--mllm", mllm, "--planner", "mllm", "--candidates", 2, "--out", out, "--device", "cpu")
    status, _, said = squeeze("plan", *references, "--prompt", PROMPT, *options)
    assert status == 0 and "plan 1 (candidate" in said
    assert 1 <= len(read_plans(out)) <= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "plan.txt"], "End it in .json"),
        (["--planner", "magic"], "auto, mllm, rule"),
        (["--prompt", ""], "instruction is empty"),
        (["--prompt", "a" * 10_000], "10,000 characters"),
        (["--candidates", "99"], "1 to 32"),
        (["--subjects", "13"], "at most 12"),
        (["--planner", "mllm"], "load one"),
        (["--prompt", "the cat of picture 4"], "names picture 4"),
        (["--reference", "nothing.png"], "no picture at"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(squeeze, references, tmp_path, arguments, words):
    options = ("--prompt", PROMPT, "--out", tmp_path / "plan.json", *arguments)
    status, written, said = squeeze("plan", *references, *options)
    lines = [line for line in said.splitlines() if line.startswith("squeeze: ")]
    assert status == 2 and written == "" and len(lines) == 1 and words in lines[0]
    assert not list(tmp_path.glob("plan*"))
