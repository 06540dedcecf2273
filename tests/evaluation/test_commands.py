"""`squeeze eval ...` as a user has it: folders in, reports out, one line when it cannot."""

import errno
import json
import shutil
import sys

import pytest

from squeeze_core import cli, toyworld

from . import models as tiny


@pytest.fixture
def squeeze(monkeypatch, capfd, tmp_path):
    """Run `squeeze ...` in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squeeze", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capfd.readouterr()
        return leaving.value.code or 0, out.split(), err

    return run


def test_a_folder_of_any_tools_pictures_is_scored(squeeze, tmp_path, pictures, dataset, model_root):
    given = ("--images", pictures, "--data", dataset, "--models", model_root)
    status, written, said = squeeze("eval", "dreambench", *given, "--label", "Mine", "--out", "scores")
    assert status == 0
    assert written == [f"scores/dreambench_dino_i{end}" for end in (".json", ".md", "_worst.png")]
    assert "DINO-I" in said
    text = (tmp_path / written[1]).read_text()
    assert "| **Mine** |" in text and "is not DINO ViT-S/16" in text  # these are tiny models
    before = (tmp_path / written[0]).read_text()
    # Again: everything is in the cache, and the report is the same.
    assert squeeze("eval", "dreambench", *given, "--label", "Mine", "--out", "again")[0] == 0
    assert (tmp_path / "again" / "dreambench_dino_i.json").read_text() == before


def test_generate_in_shards_then_score_then_compare(squeeze, tmp_path, dataset, model_root):
    make = ("eval", "generate", "dreambench", "--data", dataset, "--side", 64, "--steps", 1, "--seeds", 2)
    make += ("--limit", 3)
    assert squeeze(*make, "--out", "a", "--shard", "1/2")[0] == 0
    assert len(list((tmp_path / "a").rglob("*.png"))) == 4
    assert squeeze(*make, "--out", "a", "--shard", "2/2")[0] == 0
    assert len(list((tmp_path / "a").rglob("*.png"))) == 6
    status, _, said = squeeze(*make, "--out", "a")
    assert status == 0 and "0 pictures made, 6 were there already" in said
    assert squeeze(*make, "--out", "b", "--first-seed", 9, "--label", "Other seeds")[0] == 0
    assert squeeze("eval", "dreambench", "--run", "a", "--models", model_root)[0] == 0
    first = "scores/a/dreambench_dino_i.json"
    status, written, _ = squeeze("eval", "dreambench", "--run", "b", "--models", model_root, "--against", first)
    assert status == 0
    text = (tmp_path / written[1]).read_text()
    assert "## Compared with a" in text and "**Other seeds**" in text
    status, written, _ = squeeze("eval", "compare", first, "scores/b/dreambench_dino_i.json", "--out", "both")
    assert status == 0
    comparison = json.loads((tmp_path / written[0]).read_text())["comparison"]["metrics"]["dino_i"]
    assert comparison["cases"] == 6
    assert squeeze(*make, "--out", "a", "--tau-1", "0.5", "--tau-2", "0.5")[0] == 2


def test_pose_ip_sim_stress_and_multi_subject_are_measured(squeeze, tmp_path, pictures, dataset, model_root):
    models = ("--models", model_root)
    status, written, _ = squeeze("eval", "pose", "--images", pictures, "--data", dataset, *models)
    assert status == 0 and "| USO | 20.8 | 9.6 | 0.401 |" in (tmp_path / written[1]).read_text()
    make = ("--data", dataset, "--side", 64, "--steps", 1, "--limit", 2, "--seeds", 1)
    for name in ("stress", "multi-subject"):
        assert squeeze("eval", "generate", name, *make, "--out", name)[0] == 0
        status, written, _ = squeeze("eval", name, "--run", name, *models)
        assert status == 0, name
    assert "Stand-in set" in (tmp_path / written[1]).read_text()

    assets = tmp_path / "XVerse" / "assets" / "XVerseBench" / "object"
    assets.mkdir(parents=True)
    tiny.picture(0).save(assets / "01_cup.jpg")
    source = {"image_path": "assets/XVerseBench/object/01_cup.jpg", "caption": "a cup"}
    entry = {"prompt": "a cup", "modulation": [{"src_inputs": [source], "use_words": [[0, "cup", "cup"]]}]}
    (tmp_path / "XVerse" / "XVerseBench_single.json").write_text(json.dumps([entry]))
    (tmp_path / "made" / "object_01_cup").mkdir(parents=True)
    tiny.picture(1).save(tmp_path / "made" / "object_01_cup" / "00_0.png")
    given = ("--images", "made", "--data", "XVerse")
    status, written, _ = squeeze("eval", "ip-sim", "xversebench", *given, *models)
    assert status == 0 and "| UNO | 80.36 | published |" in (tmp_path / written[1]).read_text()


def test_a_run_made_for_another_benchmark_is_refused_and_other_tools_pictures_are_not(
    squeeze, tmp_path, pictures, dataset, model_root
):
    shutil.copytree(pictures, tmp_path / "hard")
    (tmp_path / "hard" / "run.json").write_text(json.dumps({"benchmark": "Stress prompts", "data": str(dataset)}))
    models = ("--models", model_root)
    for given in (("--run", "hard"), ("--images", "hard", "--data", dataset)):
        for measure in (("dreambench",), ("pose",)):
            status, written, said = squeeze("eval", *measure, *given, *models)
            assert status == 2 and written == [] and not (tmp_path / "scores").exists()
            assert f'"hard" holds pictures of Stress prompts, not of DreamBench. Give another {given[0]}.' in said
    methods = ("--method", "A=hard", "--method", f"B={pictures}", "--data", dataset)
    status, _, said = squeeze("eval", "user-study", "build", *methods)
    assert status == 2 and "Give another --method." in said
    status, _, said = squeeze("eval", "reasoning", "build", "--composites", "hard", "--data", dataset)
    assert status == 2 and "Give another --composites." in said
    (tmp_path / "hard" / "run.json").write_text(json.dumps({"benchmark": "DreamBench"}))
    assert squeeze("eval", "dreambench", "--run", "hard", "--data", dataset, *models)[0] == 0


def test_a_report_that_cannot_be_written_is_known_before_any_picture_is_scored(
    squeeze, tmp_path, pictures, dataset, model_root
):
    (tmp_path / "file").write_text("")
    given = ("--images", pictures, "--data", dataset, "--models", model_root, "--out", "file")
    for measure in ("dreambench", "pose"):
        status, _, said = squeeze("eval", measure, *given)
        assert status == 2 and '"file" cannot be written to' in said
    status, _, said = squeeze("eval", "toyworld", "--out", "file")
    assert status == 2 and '"file" cannot be written to' in said
    assert not (tmp_path / "cache").exists()  # where every score goes


@pytest.mark.parametrize("name", ["banana", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(squeeze, pictures, dataset, model_root, name):
    given = ("--images", pictures, "--data", dataset, "--models", model_root)
    for command in (("dreambench", *given), ("generate", "dreambench", "--data", dataset)):
        status, _, said = squeeze("eval", *command, "--device", name)
        assert status == 2 and f'no device "{name}" here. Choose one of cpu' in said and "Traceback" not in said


def test_a_run_goes_on_only_with_the_same_vae_and_dtypes(squeeze, tmp_path, dataset):
    paths = toyworld.build()
    make = ("eval", "generate", "dreambench", "--data", dataset, "--side", 64, "--steps", 1, "--seeds", 1)
    make += ("--limit", 1, "--device", "cpu", "--out", "run")
    models = ("--flux", paths.flux, "--mllm", paths.mllm, "--adapter", paths.adapter)
    assert squeeze(*make, *models, "--vae", paths.vae)[0] == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {key: run["models"][key] for key in ("vae", "dtype", "mllm_dtype")} == {
        "vae": str(paths.vae),
        "dtype": "default",
        "mllm_dtype": "default",
    }
    for changed, words in (
        (("--vae", paths.vae, "--dtype", "bf16"), "dtype = 'default', and now it is 'bf16'"),
        (("--vae", paths.vae, "--mllm-dtype", "bf16"), "mllm_dtype = 'default', and now it is 'bf16'"),
        (("--vae", paths.vae_file), "vae = "),
    ):
        status, _, said = squeeze(*make, *models, *changed)
        assert status == 2 and words in said


def test_generate_refuses_a_place_or_a_seed_before_it_works(squeeze, tmp_path, dataset):
    (tmp_path / "file").write_text("")
    make = ("eval", "generate", "dreambench", "--data", dataset, "--limit", 1)
    for out in ("file", "file/below"):
        status, _, said = squeeze(*make, "--out", out)
        assert status == 2 and "cannot be written to" in said and "Traceback" not in said
    status, _, said = squeeze(*make, "--first-seed", 2**64 - 1, "--seeds", 2)
    assert status == 2 and f"The seed is {2**64}; give 0 or more" in said
    assert not (tmp_path / "runs" / "eval" / "run.json").exists()


def test_a_disk_that_is_full_is_one_line(squeeze, monkeypatch, tmp_path):
    from squeeze_core.evaluation.benchmarks import toyworld as prompts

    def full(folder, count, seed):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "0000.png"))

    monkeypatch.setattr(prompts, "write", full)
    status, _, said = squeeze("eval", "toyworld", "--prompts", "toy")
    assert status == 2 and "The disk is full" in said and "0000.png" in said and "Traceback" not in said


def test_bad_pictures_are_named_and_the_rest_is_scored(squeeze, tmp_path, dataset, model_root):
    (tmp_path / "run" / "vase").mkdir(parents=True)
    tiny.picture(0).save(tmp_path / "run" / "vase" / "00_0.png")
    (tmp_path / "run" / "vase" / "01_0.png").write_bytes(b"broken")
    given = ("--data", dataset, "--models", model_root)
    status, written, said = squeeze("eval", "dreambench", "--images", "run", *given)
    assert status == 0 and "not scored: vase/01_0.png" in " ".join(said.split())
    assert "vase/01_0.png" in (tmp_path / written[1]).read_text()
    (tmp_path / "run" / "vase" / "00_0.png").write_bytes(b"broken too")
    status, written, said = squeeze("eval", "dreambench", "--images", "run", *given)
    assert status == 2 and written == [] and "Not one picture" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either --images"),
        (("--images", "run", "--run", "run"), "either --images"),
        (("--images", "nowhere", "--data", "{data}"), 'no folder "nowhere"'),
        (("--run", "nowhere"), "squeeze eval generate"),
        (("--images", "{pictures}"), "Give --data"),
        (("--images", "{pictures}", "--data", "nowhere"), 'nothing at "nowhere"'),
        (("--images", "{pictures}", "--data", "{pictures}"), "git clone"),
        (("--images", "{pictures}", "--data", "{data}"), "hf download facebook/dino-vits16 --local-dir models/"),
        (("--images", "{pictures}", "--data", "{data}", "--dino", "x"), 'nothing at "x"'),
        (("--images", "{pictures}", "--data", "{data}", "--against", "x.json"), "x.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(squeeze, pictures, dataset, arguments, words):
    filled = [a.replace("{data}", str(dataset)).replace("{pictures}", str(pictures)) for a in arguments]
    status, written, said = squeeze("eval", "dreambench", *filled)
    lines = [line for line in said.splitlines() if line.startswith("squeeze: ")]
    assert status == 2 and written == [] and "Traceback" not in said
    assert len(lines) == 1 and words in lines[0]


def test_every_measure_has_help_with_an_example(squeeze):
    from squeeze_core.commands.eval import MEASURES

    _, listed, _ = squeeze("eval", "--help")
    for name in MEASURES:
        assert name in listed
        status, said, _ = squeeze("eval", name, "--help")
        assert status == 0 and f"Example: squeeze eval {name}" in " ".join(said)
