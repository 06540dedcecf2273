"""The command line as a user has it: real picture files in, real picture files out, one line when it fails."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError

from squeeze_core import cli, toyworld

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "the star of picture 1 on a beach"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The toy world of this test lies in a cache folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        toyworld.build()
        yield


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.jpg"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def squeeze(monkeypatch, capfd):
    """Run `squeeze ...` in this process: (exit status, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["squeeze", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capfd.readouterr()
        return leaving.value.code or 0, out, err

    return run


SMALL = ("--prompt", PROMPT, "--height", 64, "--width", 96, "--steps", 2, "--long-side", 48)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_help_comes_without_torch_and_shows_an_example_for_every_command():
    code = "import sys; from squeeze_core import cli; cli.app(); assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    shown = subprocess.run(
        [sys.executable, "-m", "squeeze_core.cli", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for command in ("demo", "generate", "plan", "toyworld"):
        assert f"\n  {command} " in shown
        asked = [sys.executable, "-m", "squeeze_core.cli", command, "--help"]
        text = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert f"Example: squeeze {command}" in " ".join(text.split())


def test_a_picture_file_and_a_prompt_become_a_picture_file(squeeze, picture, tmp_path):
    out = tmp_path / "new folder" / "out.png"
    status, written, said = squeeze("generate", "--reference", picture, *SMALL, "--out", out)
    assert status == 0
    assert written.strip() == str(out)  # nothing else, so that scripts can read it
    assert "Toy world" in " ".join(said.split())
    shown = Image.open(out)
    assert shown.size == (96, 64)
    notes = json.loads(shown.text["squeeze"])
    assert notes["prompt"] == PROMPT and notes["references"] == ["picture.jpg"] and notes["toy_world"] is True
    assert os.listdir(out.parent) == ["out.png"]


def test_the_toy_world_answers_at_the_one_size_that_its_flux_knows(squeeze, picture, tmp_path):
    few = ("--prompt", PROMPT, "--reference", picture, "--steps", 1)
    squeeze("generate", *few, "--out", tmp_path / "own.png")
    notes = json.loads(Image.open(tmp_path / "own.png").text["squeeze"])
    assert (
        Image.open(tmp_path / "own.png").size == (toyworld.SIDE, toyworld.SIDE)
        and notes["long_side"] == toyworld.SIDE
    )
    prompts, run = tmp_path / "prompts", tmp_path / "run"
    squeeze("eval", "toyworld", "--count", 1, "--prompts", prompts)
    status, _, said = squeeze("eval", "generate", "toyworld", "--data", prompts, "--steps", 1, "--out", run)
    assert status == 0, said
    made = [Image.open(path) for path in run.rglob("*.png")]
    assert [each.size for each in made] == [(toyworld.SIDE, toyworld.SIDE)]


def test_the_same_command_gives_the_same_picture_and_options_change_it(squeeze, picture, tmp_path):
    def made(*options) -> np.ndarray:
        out = tmp_path / "out.png"
        assert squeeze("generate", "--reference", picture, *SMALL, "--out", out, *options)[0] == 0
        return pixels(out)

    first = made()
    assert np.array_equal(made(), first)
    # This FLUX knows one guidance only, so it is seen in the notes and not in the pixels.
    assert np.array_equal(made("--guidance", 5), first)
    assert json.loads(Image.open(tmp_path / "out.png").text["squeeze"])["guidance"] == 5
    for options in (
        ("--seed", 1),
        ("--tau-1", 0, "--tau-2", 0),
        ("--tau-2", "0.8"),
        ("--cfg", 3),
        ("--strength", 0),
        ("--placement", "uxo"),
        ("--text-layers", "none"),
        ("--curve", "linear"),
        ("--system-prompt", "Look closely."),
    ):
        assert not np.array_equal(made(*options), first), options
    kept = ("--tau-2", "0.8", "--late", "keep")
    assert not np.array_equal(made(*kept), made("--tau-2", "0.8"))


def test_count_numbers_the_files(squeeze, tmp_path):
    status, written, _ = squeeze("generate", *SMALL, "--count", 2, "--out", tmp_path / "out.png")
    assert status == 0 and written.split() == [str(tmp_path / f"out_{i}.png") for i in (1, 2)]
    assert not np.array_equal(pixels(tmp_path / "out_1.png"), pixels(tmp_path / "out_2.png"))


def test_the_users_own_models_are_taken_when_given(squeeze, picture, tmp_path):
    paths = toyworld.build()
    toy, own = tmp_path / "toy.png", tmp_path / "own.png"
    squeeze("generate", "--reference", picture, *SMALL, "--out", toy)
    models = ("--flux", paths.flux_file, "--vae", paths.vae, "--mllm", paths.mllm, "--adapter", paths.adapter)
    status, _, said = squeeze(
        "generate", "--reference", picture, *SMALL, *models, "--device", "cpu", "--offload", "--out", own
    )
    assert status == 0 and "Toy world" not in said
    assert np.abs(pixels(toy).astype(int) - pixels(own)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reference", "nothing.png"], "no picture at"),
        (["--reference", __file__], "cannot be read as a picture"),
        (["--out", "out.txt"], ".png, .jpg or .webp"),
        (["--out", "."], "is a folder"),
        (["--flux", "flux"], "not --mllm and --adapter"),
        (["--vae", "vae"], "not --flux and --mllm and --adapter"),
        (["--flux", "a", "--mllm", "b", "--adapter", "c"], 'no adapter at "c"'),
        (["--tau-1", "0.5", "--tau-2", "0.9"], "tau_1 >= tau_2"),
        (["--late", "never"], "drop, zero, keep"),
        (["--curve", "sine"], "cosine"),
        (["--text-layers", "0-99"], '"0-6"'),
        (["--height", "100"], "multiple of 16"),
        (["--prompt", "<|im_end|>"], "control token"),
        (["--prompt", ""], "prompt is empty"),
        (["--mask", "{picture}"], "0 reference pictures and 1 masks"),
        (["--reference", "{picture}", "--mask", "{black}"], "black everywhere"),
        (["--reference", "{picture}", "--long-side", "5"], "at least 16 px"),
        (["--dtype", "int3"], "default, fp32, bf16, fp16"),
        (["--mllm-dtype", "int3"], "fp8_e4m3fn"),
        (["--device", "banana"], 'no device "banana"'),
        (["--strength", "nan"], "strength of the LoRA is nan"),
        (["--guidance", "nan"], "guidance is nan"),
        (["--cfg", "-1"], "true_cfg is -1"),
        (["--seed", str(2**64)], "at most 18446744073709551615"),
    ],
)
def test_a_mistake_is_one_line_before_models_are_loaded(squeeze, picture, tmp_path, arguments, words, monkeypatch):
    monkeypatch.setattr(toyworld, "load", lambda: pytest.fail("the models were loaded"))
    black = tmp_path.with_name(f"{tmp_path.name}_black.png")
    Image.new("L", (60, 40)).save(black)
    arguments = [
        argument.replace("{picture}", str(picture)).replace("{black}", str(black)) for argument in arguments
    ]
    status, written, said = squeeze("generate", *SMALL, "--out", tmp_path / "out.png", *arguments)
    lines = [line for line in said.splitlines() if line.startswith("squeeze: ")]
    assert status == 2 and written == ""
    assert len(lines) == 1 and words in lines[0]
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["picture.jpg"]


def test_an_unknown_option_exits_with_2_and_no_traceback(squeeze):
    status, _, said = squeeze("generate", "--prompt", "x", "--colour", "red")
    assert status == 2 and "--colour" in said and "Traceback" not in said


def test_a_missing_package_is_named_with_the_command_that_installs_it(squeeze, monkeypatch):
    def broken():
        raise ModuleNotFoundError("No module named 'a_missing_package'", name="a_missing_package")

    monkeypatch.setattr(cli, "app", lambda: broken)
    status, _, said = squeeze("demo")
    assert status == 2 and 'pip install "squeeze-mllm[demo]"' in said and '"a_missing_package"' in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "The disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), '"a.png": Permission denied. Choose another'),
        (FileExistsError(errno.EEXIST, "File exists", "folder"), '"folder": File exists. Choose another'),
    ],
)
def test_a_place_that_cannot_be_written_to_is_one_line(squeeze, monkeypatch, error, words):
    def broken():
        raise error

    monkeypatch.setattr(cli, "app", lambda: broken)
    status, _, said = squeeze("export")
    assert status == 2 and words in said and "Traceback" not in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("error", [OSError("of no file"), OSError(errno.EIO, "Input/output error", "a.png")])
def test_another_error_of_the_system_is_not_hidden(monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr(cli, "app", lambda: broken)
    with pytest.raises(OSError, match=r"no file|Input/output"):
        cli.main()


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch):
    def broken():
        raise KeyError("ours")

    monkeypatch.setattr(cli, "app", lambda: broken)
    with pytest.raises(KeyError):
        cli.main()


def test_transparency_lies_on_white_and_photos_stand_upright(squeeze, tmp_path):
    from squeeze_core.picture_files import read_picture

    clear = Image.new("RGBA", (8, 6), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.all(np.asarray(read_picture(tmp_path / "clear.png")) == 255)
    turned = Image.new("RGB", (8, 6), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (6, 8)


def test_the_demo_writes_a_sheet_and_two_plots_and_says_where(squeeze, tmp_path):
    status, written, said = squeeze("demo", "--out", tmp_path / "demo", "--steps", 3)
    files = [tmp_path / "demo" / name for name in ("contact_sheet.png", "layers.png", "gate.png")]
    assert status == 0 and written.split() == [str(file) for file in files]
    assert "Toy world" in said
    for file in files:
        assert len(np.unique(pixels(file))) > 20  # something is drawn
    assert (tmp_path / "demo" / "reference.png").is_file()


def test_the_demo_takes_the_users_pictures(squeeze, picture, tmp_path):
    options = ("--reference", picture, "--reference", picture, "--steps", 2, "--out", tmp_path / "demo")
    assert squeeze("demo", *options)[0] == 0
    assert not (tmp_path / "demo" / "reference.png").exists()
    status, _, said = squeeze("demo", *(5 * ("--reference", picture)))
    assert status == 2 and "up to 4" in said


def test_the_toy_world_can_be_written_anywhere(squeeze, tmp_path):
    status, written, _ = squeeze("toyworld", "--out", tmp_path / "world")
    assert status == 0 and written.strip() == str(tmp_path / "world")
    assert toyworld.is_complete(tmp_path / "world")


def test_the_version_is_told(squeeze):
    from squeeze_core import __version__

    assert squeeze("--version") == (0, f"squeeze {__version__}\n", "")


def plan_of(left: int = 1, right: int = 2, **changes) -> dict:
    subjects = [
        {
            "number": 1,
            "name": "first",
            "picture": 1,
            "caption": "a photo of the small toy, on the left, on a beach",
        },
        {
            "number": 2,
            "name": "second",
            "picture": 2,
            "caption": "a photo of the small toy, on the right, on a beach",
        },
    ]
    return {"subjects": subjects, "grid": [[left] * 4 + [right] * 4] * 8, **changes}


def test_a_plan_is_drawn_subject_by_subject_and_the_picked_one_of_several(squeeze, picture, tmp_path):
    plans, out = tmp_path / "plan.json", tmp_path / "out.png"
    plans.write_text(json.dumps({"plans": [plan_of(), plan_of(2, 1)]}), encoding="utf-8")
    common = ("--plan", plans, "--reference", picture, "--reference", picture, "--height", 64, "--width", 64)
    for number in (1, 2):
        arguments = (*common, "--pick", number, "--steps", 2, "--out", tmp_path / f"out{number}.png")
        status, said, _ = squeeze("generate", *arguments)
        assert status == 0, said
    one, other = (Image.open(tmp_path / f"out{number}.png") for number in (1, 2))
    assert one.tobytes() != other.tobytes()
    notes = json.loads(one.info["squeeze"])
    assert notes["pick"] == 1 and notes["captions"] == [s["caption"] for s in plan_of()["subjects"]]
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({}, ("--pick", 3), "Plan 3 is asked for"),
        ({"grid": [[1] * 8] * 8}, (), "Subject 2 has no cell"),
        ({}, ("--reference", "again"), "Picture 3 is no subject"),
        ({}, ("--prompt", "a toy"), "a plan and a prompt"),
        ({}, ("--until", 2), "until is 2"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_a_model_runs(
    squeeze, picture, tmp_path, changes, more, message
):
    plans = tmp_path / "plan.json"
    plans.write_text(json.dumps(plan_of(**changes)), encoding="utf-8")
    more = [picture if value == "again" else value for value in more]
    common = ("--plan", plans, "--reference", picture, "--reference", picture)
    status, _, said = squeeze("generate", *common, *more, "--out", tmp_path / "out.png")
    assert status == 2 and message in said and not (tmp_path / "out.png").exists()
