"""Where the truth is known: a DINO-like score rewards copies, the exact measures do not."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.measures import toyworld
from squeeze_core.toyworld import measures, scenes
from squeeze_core.vision.backbones import load_dino

from . import models

COUNT = 6


@pytest.fixture(scope="module")
def results():
    return toyworld.demonstrate(toyworld.UntrainedViT(), COUNT)


def test_a_copied_reference_has_the_highest_identity_and_no_pose_variation(results):
    copied = results["copied"]
    for row in copied.pictures:
        assert row.score("likeness") == pytest.approx(1.0, abs=1e-6)
        assert row.score("identity") == 1.0 and row.score("pose_variation") == 0.0
    assert all(copied.mean("likeness") >= result.mean("likeness") for result in results.values())


def test_copying_raises_the_dino_like_score_though_the_right_picture_is_as_much_the_subject(results):
    assert results["right"].mean("identity") == results["copied"].mean("identity") == 1.0
    assert toyworld.inflation(results)["copied"] > 0.1
    assert results["right"].mean("prompt") == 1.0 > results["copied"].mean("prompt")
    assert results["right"].mean("pose_variation") > results["pasted"].mean("pose_variation")


def test_wrong_identities_are_told_by_the_truth(results):
    assert results["other colour"].mean("identity") == pytest.approx(0.75)
    assert results["someone else"].mean("identity") < 0.5
    assert results["other colour"].mean("prompt") == 1.0


def test_the_numbers_are_the_toy_worlds_own_and_the_cosine_of_the_encoder(results):
    asked = toyworld.pairs(COUNT)
    encoder = toyworld.UntrainedViT()
    from PIL import Image

    for row, pair in zip(results["right"].pictures, asked):
        made, given = scenes.render(pair.target), scenes.render(pair.references[0])
        truth = measures.score(made, pair)
        assert (row.score("identity"), row.score("prompt")) == (truth.identity, truth.prompt)
        a, b = encoder.encode([Image.fromarray(made), Image.fromarray(given)]).double().numpy()
        assert row.score("likeness") == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_the_rank_correlation_equals_scipys(results):
    several = list(results.values())
    for truth in ("identity", "prompt"):
        rows = [row for result in several for row in result.pictures]
        expected = spearmanr([r.score("likeness") for r in rows], [r.score(truth) for r in rows]).statistic
        assert toyworld.correlation(several, truth) == pytest.approx(expected, abs=1e-9)
    assert toyworld.correlation([results["copied"]]) is None  # all the same: no correlation, not a crash


def test_dino_itself_can_be_the_encoder(tmp_path):
    encoder = load_dino(models.dino(tmp_path / "dino"))
    asked = toyworld.pairs(2)
    result = toyworld.score([scenes.render(pair.references[0]) for pair in asked], asked, encoder)
    assert result.mean("likeness") == pytest.approx(1.0, abs=1e-6) and result.backbones[0]["name"] == "dino"


def test_the_report_says_which_way_copying_moves_the_score_and_that_the_network_is_no_dino(results):
    text = toyworld.markdown(results)
    assert "raises the DINO-like score" in text and "not DINO" in text
    assert all(f"| {name} |" in text for name in toyworld.GENERATORS)


def test_pictures_of_another_number_or_size_are_refused():
    asked = toyworld.pairs(1)
    encoder = toyworld.UntrainedViT()
    with pytest.raises(SqueezeError, match="2 pictures for 1"):
        toyworld.score([scenes.render(asked[0].target)] * 2, asked, encoder)
    with pytest.raises(SqueezeError, match="64"):
        toyworld.score([scenes.render(asked[0].target)[:64]], asked, encoder)
