"""`squeeze generate --plan-candidates N --best-of M`: pictures of plans, and the best of them kept."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from squeeze_core import cli, toyworld
from squeeze_core.best_scene import MOST_PICTURES, generate_best
from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.measures.toyworld import UntrainedViT
from squeeze_core.generation import GenerationSettings
from squeeze_core.pipeline import SqueezePipeline
from squeeze_core.planning.files import read_plans
from squeeze_core.planning.rule import plan_by_rule
from squeeze_core.scene import generate_scene, placed_subjects

PROMPT = "a photo of the toy of picture 1 left of the toy of picture 2, on a beach"
REFERENCES = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
SMALL = GenerationSettings(height=64, width=64, steps=2, long_side=64)


@pytest.fixture(scope="module")
def pipeline():
    return SqueezePipeline.from_toy_world(toyworld.load(), device="cpu")


@pytest.fixture
def squeeze(monkeypatch, capfd, tmp_path):
    references = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path, picture in zip(references, REFERENCES):
        picture.save(path)
    common = [part for path in references for part in ("--reference", path)]
    common += ["--height", 64, "--width", 64, "--steps", 2]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squeeze", "generate", *map(str, [*common, *arguments])])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capfd.readouterr()
        return leaving.value.code or 0, out, err

    return run


def test_the_best_is_the_picture_that_its_plan_and_seed_give_alone(pipeline):
    plans = [plan_by_rule(prompt, 2, "small") for prompt in (PROMPT, PROMPT.replace("left of", "above"))]
    reads = []
    best = generate_best(
        pipeline, plans, REFERENCES, SMALL, 2, dino=UntrainedViT(), progress=lambda *told: reads.append(told)
    )
    assert (
        len(best.pictures) == 4 and best.seeds == (0, 1, 0, 1) and best.plans == (*[plans[0]] * 2, *[plans[1]] * 2)
    )
    alone = generate_scene(
        pipeline,
        placed_subjects(best.plan, REFERENCES),
        GenerationSettings(height=64, width=64, steps=2, long_side=64, seed=best.seed),
    ).images[0]
    assert np.array_equal(alone, best.picture)
    assert best.choice.best == max(range(4), key=lambda i: round(best.choice.scores[i].smallest, 9))
    # Four captions in two plans: all are read together, once, whatever the number of pictures.
    assert sum(done == total for what, done, total in reads if what == "encode") == 1


def test_too_many_pictures_are_refused(pipeline):
    with pytest.raises(SqueezeError, match=f"choose from 1 to {MOST_PICTURES}"):
        generate_best(pipeline, [plan_by_rule(PROMPT, 2)], REFERENCES, SMALL, MOST_PICTURES + 1)


def test_a_prompt_is_planned_and_the_best_picture_its_plan_and_a_sheet_are_written(squeeze, tmp_path):
    out = tmp_path / "out.png"
    status, written, said = squeeze("--prompt", PROMPT, "--plan-candidates", 1, "--best-of", 2, "--out", out)
    sheet, plan = tmp_path / "out_sheet.png", tmp_path / "out_plan.json"
    assert status == 0 and written.split() == [str(out), str(sheet), str(plan)]
    assert "smallest" in said and "The best: plan 1" in said
    notes = json.loads(Image.open(out).info["squeeze"])
    assert notes["plan"] == "out_plan.json" and notes["prompt"] == PROMPT
    (used,) = read_plans(plan)
    assert notes["captions"] == [subject.caption for subject in used.subjects]
    # What is written makes the picture again.
    again = tmp_path / "again.png"
    assert squeeze("--plan", plan, "--seed", notes["seed"], "--out", again)[0] == 0
    assert Image.open(again).tobytes() == Image.open(out).tobytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", PROMPT, "--best-of", 2], "Add --plan FILE, or --plan-candidates"),
        (["--prompt", PROMPT, "--plan-candidates", 1, "--best-of", 2, "--count", 2], "--best-of keeps one"),
        (["--prompt", PROMPT, "--plan-candidates", 1, "--best-of", 99], "99 pictures are 99"),
        (["--prompt", PROMPT, "--plan-candidates", 40], "1 to 32"),
        (
            ["--prompt", PROMPT, "--plan-candidates", 1, "--best-of", 2, "--rule", "magic"],
            "smallest_identity, clip_t",
        ),
        (["--prompt", PROMPT, "--plan-candidates", 1, "--best-of", 2, "--rule", "clip_t"], "knows no toys"),
        (["--plan", "plan.json", "--plan-candidates", 2], "--plan or --plan-candidates"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(squeeze, tmp_path, arguments, words):
    status, written, said = squeeze(*arguments, "--out", tmp_path / "out.png")
    lines = [line for line in said.splitlines() if line.startswith("squeeze: ")]
    assert status == 2 and written == "" and len(lines) == 1 and words in lines[0]
    assert not list(tmp_path.glob("out*"))
