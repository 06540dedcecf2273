"""squeeze eval dreambench-plus, reasoning, user-study and toyworld, from the command line to the report."""

import json
import re

import pytest

from squeeze_core.cli import main
from squeeze_core.evaluation import benchmarks
from squeeze_core.evaluation.generated_files import collect
from squeeze_core.evaluation.user_study.building import Key

from ..mllm import checkpoints
from . import models


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def squeeze(monkeypatch, capsys):
    """Run a command: (exit status, lines on stdout, stderr)."""

    def call(*arguments) -> tuple[int, list[str], str]:
        monkeypatch.setattr("sys.argv", ["squeeze", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    return call


@pytest.fixture
def dreambooth(tmp_path):
    """DreamBench's data with enough live subjects for the reasoning benchmark."""
    data = models.dreambench(tmp_path / "dreambooth") / "dataset"
    text = (data / "prompts_and_classes.txt").read_text()
    (data / "prompts_and_classes.txt").write_text(text.replace("vase,vase\n", "vase,vase\ncat,cat\n"))
    (data / "cat").mkdir()
    models.picture(77, 64, 64).save(data / "cat" / "00.png")
    return data.parent


def fill(folder, benchmark, seed=0):
    for number, sample in enumerate(benchmark.samples):
        path = folder / sample.subject / f"{sample.prompt:02d}_0.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        models.picture(seed + number, 64, 64).save(path)
    return folder


def test_reasoning_is_built_and_two_runs_are_scored_side_by_side(squeeze, dreambooth, tmp_path):
    fill(tmp_path / "composites", benchmarks.read("dreambench", dreambooth))
    build = ("eval", "reasoning", "build", "--composites", "composites", "--data", dreambooth)
    status, _, err = squeeze(*build)
    assert status == 2 and '170 samples of the kind "one"' in err  # two composites are not enough
    status, out, err = squeeze(*build, "--one", 6, "--two", 2)
    assert (status, out) == (0, ["reasoning/samples.json"]) and "2 of" in err
    benchmark = benchmarks.read("reasoning", tmp_path / "reasoning")
    fill(tmp_path / "alone", benchmark)
    fill(tmp_path / "gated", benchmark, 500)
    clip = models.clip(tmp_path / "clip")
    command = ("eval", "reasoning", "--images", "alone", "--beside", "gated", "--data", "reasoning", "--clip", clip)
    status, out, err = squeeze(*command, "--label", "MLLM only", "--device", "cpu")
    assert status == 0, err
    first, second = (json.loads((tmp_path / path).read_text()) for path in out if path.endswith(".json"))
    assert (first["result"]["label"], second["result"]["label"]) == ("MLLM only", "gated")
    assert len(first["result"]["pictures"]) == len(second["result"]["pictures"]) == 8
    text = (tmp_path / next(path for path in out if path.endswith(".md"))).read_text()
    assert "Qwen-Image" in text and "0.3099" in text and "published" in text
    beside = (tmp_path / [path for path in out if path.endswith(".md")][1]).read_text()
    assert "Better / worse / equal" in beside  # the paired comparison of the two runs
    for tau, label in ((0.95, "MLLM + VAE"), (0.0, "gated")):  # the gate in run.json says which row it is
        (tmp_path / "gated" / "run.json").write_text(json.dumps({"benchmark": "Reasoning", "gate": [tau, tau]}))
        status, out, err = squeeze(*command, "--device", "cpu")
        assert status == 0, err
        second = [json.loads((tmp_path / path).read_text()) for path in out if path.endswith(".json")][1]
        assert second["result"]["label"] == label
    (tmp_path / "gated" / "run.json").write_text(json.dumps({"benchmark": "DreamBench", "gate": [0.95, 0.85]}))
    status, _, err = squeeze(*command, "--device", "cpu")
    assert status == 2 and "holds pictures of DreamBench, not of Reasoning. Give another --beside." in err


@pytest.mark.parametrize(("taus", "gate"), [((), [0.0, 0.0]), (("--tau-1", 0.95, "--tau-2", 0.85), [0.95, 0.85])])
def test_reasoning_is_generated_by_the_mllm_alone_unless_a_gate_is_asked_for(
    squeeze, dreambooth, tmp_path, taus, gate, monkeypatch
):
    monkeypatch.delenv("XDG_CACHE_HOME")  # the toy world is built once for all tests
    fill(tmp_path / "composites", benchmarks.read("dreambench", dreambooth))
    build = (
        "eval",
        "reasoning",
        "build",
        "--composites",
        "composites",
        "--data",
        dreambooth,
        "--one",
        1,
        "--two",
        1,
    )
    assert squeeze(*build)[0] == 0
    command = ("eval", "generate", "reasoning", "--data", "reasoning", "--out", "run", "--side", 64, "--steps", 1)
    status, _, err = squeeze(*command, *taus)
    assert status == 0, err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["gate"][:2] == gate
    assert len(list((tmp_path / "run").glob("*/*.png"))) == 2


def test_a_user_study_is_built_answered_and_analysed(squeeze, dreambooth, tmp_path):
    benchmark = benchmarks.read("dreambench", dreambooth)
    for seed, method in enumerate(("ours", "uno")):
        fill(tmp_path / method, benchmark, 1000 * seed)
    (tmp_path / "uno" / "dog6" / "00_0.png").unlink()  # a prompt that one method lacks is never asked
    methods = ("--method", "Ours=ours", "--method", "UNO=uno")
    status, out, err = squeeze("eval", "user-study", "build", *methods, "--data", dreambooth, "--count", 20)
    assert (status, out) == (0, ["study/index.html", "study.key.json"]), err
    key = Key.read(tmp_path / "study.key.json")
    lacking = [case for case in key.questions.values() if case.name.startswith("dog6/00")]
    assert not lacking and len(key.questions) == len(collect(tmp_path / "uno", benchmark)[0])
    (tmp_path / "answers").mkdir()
    for person in range(3):
        points = {"Ours": 8, "UNO": 5 - person}
        answers = [
            {"question": name, "scores": {picture: points[method] for picture, method in case.pictures.items()}}
            for name, case in key.questions.items()
        ]
        sheet = {"format": "squeeze user study answers", "version": 1, "study": key.study, "answers": answers}
        (tmp_path / "answers" / f"{person}.json").write_text(json.dumps({**sheet, "participant": f"p{person}"}))
    status, out, err = squeeze("eval", "user-study", "analyse", "answers", "--key", "study.key.json")
    assert status == 0 and re.search(r"Ours\s+8\.00", err) and re.search(r"UNO\s+4\.00", err)
    found = json.loads((tmp_path / out[0]).read_text())
    assert found["participants"] == 3 and found["comparisons"][0]["difference"] == -4.0
    assert "7.26" in (tmp_path / out[1]).read_text()


def test_dreambench_plus_is_judged_by_an_mllm_from_a_folder(squeeze, tmp_path):
    for name in ("images", "captions"):
        (tmp_path / "plus" / name / "object").mkdir(parents=True)
    models.picture(1).save(tmp_path / "plus/images/object/00.jpg")
    (tmp_path / "plus/captions/object/00.txt").write_text("mug\na mug in snow\n")
    fill(tmp_path / "made", benchmarks.read("dreambench-plus", tmp_path / "plus"))
    command = ("eval", "dreambench-plus", "--images", "made", "--data", "plus", "--device", "cpu", "--judge")
    status, _, err = squeeze(*command, "nowhere")
    assert status == 2 and "hf download OpenGVLab/InternVL3-8B-hf" in err
    checkpoints.internvl(tmp_path / "tiny")
    (tmp_path / "file").write_text("")
    status, _, err = squeeze(*command, "tiny", "--out", "file")
    assert status == 2 and '"file" cannot be written to' in err
    (tmp_path / "made" / "run.json").write_text(json.dumps({"benchmark": "DreamBench"}))
    status, _, err = squeeze(*command, "tiny")
    assert status == 2 and "holds pictures of DreamBench, not of DreamBench++" in err
    (tmp_path / "made" / "run.json").unlink()
    status, out, err = squeeze(*command, "tiny", "--attempts", 1)
    assert status == 2 and "No judge gave a score" in err  # random weights answer nonsense, and that is no success
    found = json.loads((tmp_path / out[0]).read_text())["result"]
    (row,) = found["pictures"]
    assert row["scores"] == {"tiny": None, "average": None}  # missing, not 0
    assert found["backbones"][0]["name"] == "tiny" and "-" in (tmp_path / out[1]).read_text()


def test_the_toy_world_shows_what_copying_does_and_scores_a_run(squeeze, tmp_path):
    status, out, err = squeeze("eval", "toyworld", "--prompts", "toy", "--count", 2)
    assert (status, out) == (0, ["toy"]), err
    benchmark = benchmarks.read("toyworld", tmp_path / "toy")
    for sample in benchmark.samples:  # a "method" that hands back the reference, at twice the size
        path = tmp_path / "run" / sample.subject / "00_0.png"
        path.parent.mkdir(parents=True)
        from PIL import Image

        Image.open(sample.inputs[0]).resize((256, 256), Image.Resampling.NEAREST).save(path)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": "toy", "label": "mine"}))
    status, out, err = squeeze("eval", "toyworld", "--run", "run")
    assert status == 0, err
    text = (tmp_path / out[1]).read_text()
    assert "raises the DINO-like score" in text
    rows = {line.split("|")[1].strip(): line.split("|")[2:6] for line in text.splitlines() if line.startswith("| ")}
    assert rows["mine"] == rows["copied"] and float(rows["mine"][0]) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reasoning", "--images", "x"), "--data"),
        (("reasoning",), "--images"),
        (("reasoning", "build", "--composites", "x", "--data", "x", "--one", "0", "--two", "0"), "1 or more"),
        (("toyworld", "--prompts", "new", "--run", "x"), "Give one of them"),
        (("user-study", "build", "--method", "x", "--data", "x"), "NAME=FOLDER|nothing at"),
        (("user-study", "analyse", "x", "--key", "x"), "cannot be read as the key"),
        (("toyworld", "--run", "x"), "x"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(squeeze, arguments, message):
    status, _, err = squeeze("eval", *arguments)
    assert status == 2 and re.search(message, err) and "Traceback" not in err


def test_judges_in_folders_of_one_name_are_told_apart(tmp_path):
    from squeeze_core.commands.evaluation.dreambench_plus import _named

    folders = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "other"]
    assert list(_named(folders)) == ["a/model", "b/model", "other"] and list(_named(folders).values()) == folders
