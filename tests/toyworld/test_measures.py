"""The exact measures: what was drawn is read back, copies are copies, wrong pictures score low."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from squeeze_core.toyworld import measures, scenes
from squeeze_core.toyworld.reading import read

PICTURES = 120


def spoiled(picture: np.ndarray, seed: int) -> np.ndarray:
    """Blurred by 0.8 pixels and with noise of 8 of 255, as a decoder's mistakes are."""
    kernel = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * 0.8**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[:, None].float()
    blurred = F.conv2d(F.pad(pixels, (3, 3, 3, 3), mode="replicate"), kernel[None, None])[:, 0]
    noise = np.random.default_rng(seed).normal(0, 8, picture.shape)
    return (blurred.permute(1, 2, 0).numpy() + noise).clip(0, 255).round().astype(np.uint8)


def nearest(subjects, pose):
    return min(subjects, key=lambda found: abs(found.pose.x - pose.x) + abs(found.pose.y - pose.y))


@pytest.fixture(scope="module")
def readings():
    options = scenes.WorldOptions(carrying=0)
    drawn = [scenes.single(3, i, options) for i in range(PICTURES)]
    return [(one, read(spoiled(scenes.render(one.scene), i))) for i, one in enumerate(drawn)]


@pytest.mark.parametrize("attribute", ["shape", "colour", "pattern", "second"])
def test_identities_are_read_from_noisy_blurred_pictures(readings, attribute):
    right = [
        getattr(nearest(reading.subjects, subject.pose).identity, attribute) == getattr(subject.identity, attribute)
        for one, reading in readings
        for subject in one.scene.subjects
    ]
    assert sum(right) / len(right) >= 0.98


def test_backgrounds_counts_and_styles_are_read_from_noisy_blurred_pictures(readings):
    right = np.array(
        [
            (
                reading.background == one.scene.background,
                len(reading.subjects) == len(one.scene.subjects),
                reading.style == one.scene.style,
            )
            for one, reading in readings
        ]
    ).mean(0)
    assert right[0] >= 0.98 and right[1] >= 0.98 and right[2] >= 0.95


def test_poses_are_read_to_a_pixel_and_a_few_degrees(readings):
    errors = []
    for one, reading in readings:
        for subject in one.scene.subjects:
            pose = nearest(reading.subjects, subject.pose).pose
            errors.append([abs(pose.x - subject.pose.x), abs(pose.y - subject.pose.y)])
            assert abs(pose.size / subject.pose.size - 1) < 0.2
    assert np.mean(errors) < 1 / scenes.SIDE


def pairs(kind: str, count: int = 25) -> list[scenes.Pair]:
    options = scenes.WorldOptions(kinds=((kind, 1.0),), carrying=0)
    return [scenes.pair(5, i, options) for i in range(count)]


@pytest.mark.parametrize("kind", ["one", "several", "reasoning"])
def test_the_right_picture_has_full_marks(kind):
    scores = [measures.score(scenes.render(pair.target), pair) for pair in pairs(kind)]
    assert np.mean([s.identity for s in scores]) >= 0.98
    assert np.mean([s.prompt for s in scores]) >= 0.98


def test_a_copy_of_the_reference_is_the_same_subject_in_the_same_pose():
    scores = [measures.score(scenes.render(pair.references[0]), pair) for pair in pairs("one")]
    assert np.mean([s.identity for s in scores]) >= 0.98
    assert all(s.pose_variation == 0.0 for s in scores)
    assert np.mean([s.prompt for s in scores]) < 0.7  # it cannot follow the text as well


def test_the_right_picture_varies_the_pose_and_another_subject_scores_low():
    asked = pairs("one")
    assert np.mean([measures.score(scenes.render(p.target), p).pose_variation for p in asked]) > 0.4
    swapped = [measures.score(scenes.render(b.target), a) for a, b in pairwise(asked)]
    assert np.mean([s.identity for s in swapped]) < 0.5 and np.mean([s.prompt for s in swapped]) < 0.7


def test_two_subjects_that_changed_places_break_the_relation_but_not_identity():
    for pair in pairs("several", 8):
        a, b = pair.target.subjects
        exchanged = (replace(a, pose=b.pose), replace(b, pose=a.pose))
        scores = measures.score(scenes.render(replace(pair.target, subjects=exchanged)), pair)
        told = measures.score(scenes.render(pair.target), pair)
        assert scores.prompt < told.prompt and scores.identity == told.identity


def test_an_empty_picture_scores_nothing_but_its_background():
    pair = pairs("one", 1)[0]
    scores = measures.score(scenes.render(replace(pair.target, subjects=(), style="a photo of")), pair)
    assert scores.identity == 0.0 and not scores.exact and scores.pose_variation is None
    assert 0 < scores.prompt < 1


def test_noise_is_no_subject_of_the_world():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    reading = read(noise)
    assert reading.background is None
    assert read(noise) == reading


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="128"):
        read(np.zeros((64, 64, 3), dtype=np.uint8))
