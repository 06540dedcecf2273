"""Best of N: the picture whose worst subject is kept best, and the paper's rule."""

import importlib.util
import math
from pathlib import Path

import pytest
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.scoring import score
from squeeze_core.planning.best_of import RULES, pick_best, sheet
from squeeze_core.planning.plan import ScenePlan
from squeeze_core.vision.backbones import load_clip, load_dino

_SPEC = importlib.util.spec_from_file_location(
    "tiny_scorers_of_plans", Path(__file__).resolve().parents[1] / "evaluation" / "models.py"
)
models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)

CAT, DOG, COW = (models.picture(seed, 64, 64) for seed in (1, 2, 3))
PROMPT = "a cat left of a dog"


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (128, 64))
    picture.paste(left, (0, 0))
    picture.paste(right, (64, 0))
    return picture


# Swapped, one lost, both kept, fused.
PICTURES = [side_by_side(*pair) for pair in ((DOG, CAT), (CAT, COW), (CAT, DOG), (CAT, CAT))]


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers")
    return {"dino": load_dino(models.dino(folder / "dino")), "clip": load_clip(models.clip(folder / "clip"))}


def test_the_picture_that_keeps_every_subject_wins(plan, scorers):
    found = pick_best(PICTURES, [plan], [CAT, DOG], PROMPT, **scorers)
    assert found.best == 2 and found.scores[2].smallest == pytest.approx(1, abs=1e-6)
    swapped, _, both, fused = (one.kept for one in found.scores)
    assert (swapped, both, fused) == (0, 2, 1)
    # Identities are cosines of the very regions: the cat is itself in pictures 1, 2 and 3.
    assert [one.identities[1] > 1 - 1e-6 for one in found.scores] == [False, True, True, True]
    assert found.scores[0].identities[1] == pytest.approx(found.scores[3].identities[2], abs=1e-6)
    assert "2     1.000   2/2" in found.report() and found.report().count("best\n") == 1


def test_the_papers_rule_takes_the_best_text_score(plan, scorers):
    found = pick_best(PICTURES, [plan], [CAT, DOG], PROMPT, rule="clip_t", **scorers)
    texts = score(PICTURES, (), PROMPT, clip=scorers["clip"], rank_by="text").text
    assert [one.text for one in found.scores] == pytest.approx(texts)
    assert found.best == max(range(4), key=texts.__getitem__)


def test_equal_identities_leave_the_choice_to_the_text(plan, scorers):
    """A subject of words only has no identity; what stands there tells the pictures apart by text alone."""
    subjects = [subject.model_dump() for subject in plan.subjects]
    subjects[1]["picture"] = None
    only_cat = ScenePlan.parse(plan.model_dump() | {"subjects": subjects})
    found = pick_best(PICTURES[1:], [only_cat], [CAT], PROMPT, **scorers)
    assert all(list(one.identities) == [1] and one.smallest > 0.999 for one in found.scores)
    texts = [one.text for one in found.scores]
    assert texts[found.best] == max(texts) and len(set(texts)) > 1


def test_every_picture_may_have_a_plan_of_its_own(plan, scorers):
    turned = plan.with_grid([tuple(reversed(row)) for row in plan.grid])
    relation_free = turned.model_copy(update={"relations": ()})
    found = pick_best(PICTURES[:1] * 2, [plan, relation_free], [CAT, DOG], dino=scorers["dino"])
    assert found.best == 1 and found.scores[1].kept == 2 and math.isnan(found.scores[0].text)


def test_the_sheet_shows_every_picture_beside_its_plan(plan, scorers):
    found = pick_best(PICTURES, [plan], [CAT, DOG], PROMPT, **scorers)
    drawn = sheet(PICTURES, [plan], found)
    assert drawn.width > 4 * 224 and drawn.height > 2 * 224


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "luck"}, ", ".join(RULES)),
        ({"pictures": []}, "no picture to choose"),
        ({"references": [CAT]}, "is of picture 2, but there are 1"),
        ({"rule": "clip_t", "prompt": ""}, "needs CLIP and a prompt"),
        ({"dino": None, "clip": None}, "needs DINO or CLIP"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(plan, scorers, options, words):
    given = {"pictures": PICTURES, "references": [CAT, DOG], "prompt": PROMPT, **scorers, **options}
    with pytest.raises(SqueezeError, match=words):
        pick_best(plans=[plan], **given)
    with pytest.raises(SqueezeError, match="3 plans for 4 pictures"):
        pick_best(PICTURES, [plan] * 3, [CAT, DOG])
