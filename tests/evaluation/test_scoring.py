"""Scores of a batch in memory: those of independent computations; a copy is found out by its pose."""

import math

import pytest
import torch
import transformers
from sklearn.metrics.pairwise import cosine_similarity

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.scoring import RANKINGS, score
from squeeze_core.vision.backbones import load_clip, load_dino
from squeeze_core.vision.orientation import load_orientation

from . import models

PICTURES = [models.picture(seed, 90, 70) for seed in range(4)]
REFERENCES = [models.picture(seed, 70, 90) for seed in (10, 11)]
PROMPT = "a dog in snow"


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers")
    return {
        "dino": load_dino(models.dino(folder / "dino")),
        "clip": load_clip(models.clip(folder / "clip")),
        "orientation": load_orientation(models.orient_anything(folder / "orientation")),
    }


def test_identity_and_text_equal_scikit_learn_on_transformers_features(scorers, tmp_path):
    dino, clip = scorers["dino"], scorers["clip"]
    found = score(PICTURES, REFERENCES, PROMPT, dino=dino, clip=clip)
    with torch.no_grad():
        features = [
            torch.cat([dino.model(dino.prepare(p)[None]).last_hidden_state[:, 0] for p in group]).numpy()
            for group in (PICTURES, REFERENCES)
        ]
        tokens = clip.tokenizer([PROMPT], return_tensors="pt")
        pixels = torch.stack([clip.prepare(p) for p in PICTURES])
        out = clip.model(input_ids=tokens["input_ids"], pixel_values=pixels)
    assert found.identity == pytest.approx(cosine_similarity(*features).mean(1).tolist(), abs=1e-5)
    expected = cosine_similarity(out.image_embeds.numpy(), out.text_embeds.numpy())[:, 0]
    assert found.text == pytest.approx(expected.tolist(), abs=1e-5)
    assert max(found.identity) - min(found.identity) > 1e-3 and max(found.text) - min(found.text) > 1e-3
    assert isinstance(clip.model, transformers.CLIPModel)


def test_a_copied_reference_has_the_highest_identity_and_the_least_new_pose(scorers):
    found = score([*PICTURES, REFERENCES[0]], REFERENCES[:1], **scorers, rank_by="identity")
    assert found.best == 4 and found.identity[4] == pytest.approx(1, abs=1e-6)
    assert found.pose[4] == 0 == min(found.pose) and found.polar[4] == 0
    assert score([*PICTURES, REFERENCES[0]], REFERENCES[:1], **scorers, rank_by="pose").best != 4


def test_without_dino_clip_measures_identity_and_the_report_says_so(scorers):
    found = score(PICTURES, REFERENCES, clip=scorers["clip"])
    made, given = (scorers["clip"].encode(group).numpy() for group in (PICTURES, REFERENCES))
    assert found.identity == pytest.approx(cosine_similarity(made, given).mean(1).tolist(), abs=1e-5)
    assert found.identity_by == "CLIP" and "CLIP (clip)" in found.report() and all(map(math.isnan, found.text))


@pytest.mark.parametrize("rank_by", RANKINGS)
def test_the_best_is_the_highest_of_what_was_asked_for(scorers, rank_by):
    found = score(PICTURES, REFERENCES, PROMPT, **scorers, rank_by=rank_by)
    columns = [getattr(found, name) for name in rank_by.split(" + ")]
    totals = [sum(row) for row in zip(*columns)]
    assert totals[found.best] == max(totals)
    marked = [line for line in found.report().splitlines() if line.endswith("best")]
    assert len(marked) == 1 and marked[0].split()[0] == str(found.best)


def test_half_of_a_ranking_that_was_measured_decides_and_is_named(scorers):
    found = score(PICTURES, (), PROMPT, clip=scorers["clip"])
    assert found.best == max(range(4), key=found.text.__getitem__) and found.notes[-1] == "best: by text."


def test_what_cannot_be_measured_or_ranked_is_a_sentence(scorers):
    with pytest.raises(SqueezeError, match="need a reference"):
        score(PICTURES, (), "", **scorers)
    with pytest.raises(SqueezeError, match="ranked by pose, which was not measured; there is identity"):
        score(PICTURES, REFERENCES, dino=scorers["dino"], rank_by="pose")
    with pytest.raises(SqueezeError, match="choose identity"):
        score(PICTURES, REFERENCES, **scorers, rank_by="beauty")
    with pytest.raises(SqueezeError, match="no picture"):
        score([], REFERENCES, **scorers)
