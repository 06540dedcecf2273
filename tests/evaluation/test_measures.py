"""Each measure equals an independent computation, and says what it should about copies and bad pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity
from torchmetrics.functional.multimodal import clip_score

from squeeze_core.evaluation import benchmarks
from squeeze_core.evaluation.benchmarks import multi_subject as stand_in
from squeeze_core.evaluation.cache import Cache
from squeeze_core.evaluation.generated_files import collect, file_name
from squeeze_core.evaluation.measures import dreambench, ip_sim, multi_subject, pose, regions
from squeeze_core.vision.detector import Detection, cut, large_enough
from squeeze_core.vision.orientation import Orientation

from . import models as tiny


@pytest.fixture(scope="module")
def scored(pictures, benchmark_data, dino, clip):
    generated, _ = collect(pictures, benchmark_data)
    return generated, dreambench.score(generated, benchmark_data, dino, clip, Cache())


def vectors(model_root, kind, paths):
    """Embeddings without a line of ours: torchvision and transformers."""
    from transformers import CLIPModel, ViTModel

    from ..vision.test_backbones import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, torchvision_pixels

    images = [Image.open(path).convert("RGB") for path in paths]
    with torch.no_grad():
        if kind == "dino":
            model = ViTModel.from_pretrained(model_root / "dino-vits16", add_pooling_layer=False).eval()
            return (
                model(torchvision_pixels(images, 64, 56, IMAGENET_MEAN, IMAGENET_STD))
                .last_hidden_state[:, 0]
                .numpy()
            )
        model = CLIPModel.from_pretrained(model_root / "clip-vit-base-patch32").eval()
        pixels = torchvision_pixels(images, 48, 48, CLIP_MEAN, CLIP_STD)
        return model.visual_projection(model.vision_model(pixels).pooler_output).numpy()


@pytest.mark.parametrize(("kind", "metric"), [("dino", "dino_i"), ("clip", "clip_i")])
def test_identity_is_scikit_learns_cosine_over_all_pairs(model_root, scored, kind, metric):
    generated, result = scored
    pairs = []
    for picture, row in zip(generated, result.pictures):
        references = picture.sample.subjects[0].references
        cosines = cosine_similarity(
            vectors(model_root, kind, [picture.path]), vectors(model_root, kind, references)
        )
        assert row.score(metric) == pytest.approx(cosines.mean(), abs=1e-5)
        pairs += list(cosines[0])
    # Over pairs, not over pictures: subjects with more references count more.
    assert result.mean(metric) == pytest.approx(np.mean(pairs), abs=1e-5)
    assert len(pairs) == 2 * (2 * 2 + 3 * 3 + 3 * 1)


def test_clip_t_is_torchmetrics_clip_score_over_100(model_root, scored):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = model_root / "clip-vit-base-patch32"
    generated, result = scored
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))

    class Model(CLIPModel):
        """torchmetrics 1.9 expects what these two gave before transformers 5."""

        def get_image_features(self, *arguments, **named):
            return super().get_image_features(*arguments, **named).pooler_output

        def get_text_features(self, *arguments, **named):
            return super().get_text_features(*arguments, **named).pooler_output

    def model_and_processor():
        return Model.from_pretrained(folder).eval(), processor

    compared = 0
    for picture, row in zip(generated, result.pictures):
        pixels = torch.from_numpy(np.array(Image.open(picture.path))).permute(2, 0, 1)
        with torch.no_grad():
            theirs = float(clip_score(pixels, picture.sample.text, model_name_or_path=model_and_processor))
        mine = row.score("clip_t")
        assert max(100 * mine, 0) == pytest.approx(theirs, abs=1e-3)  # theirs are percents, cut off at 0
        compared += mine > 0
    assert compared > 2


def test_a_copied_reference_scores_highest_identity(tmp_path, benchmark_data, dino, clip):
    sample = benchmark_data.find("vase", 0)
    (tmp_path / "vase").mkdir()
    for seed in range(3):
        tiny.picture(50 + seed).save(tmp_path / file_name(sample, seed))
    Image.open(sample.inputs[0]).save(tmp_path / file_name(sample, 3))
    generated, _ = collect(tmp_path, benchmark_data)
    rows = dreambench.score(generated, benchmark_data, dino, clip, Cache()).pictures
    for metric in ("dino_i", "clip_i"):
        assert rows[3].score(metric) == pytest.approx(1, abs=1e-6)
        assert max(row.score(metric) for row in rows[:3]) < 0.999


def test_bad_pictures_are_reported_and_the_rest_is_scored(tmp_path, benchmark_data, dino, clip):
    first, second = benchmark_data.find("vase", 0), benchmark_data.find("vase", 1)
    (tmp_path / "vase").mkdir()
    tiny.picture(1).save(tmp_path / file_name(first, 0))
    (tmp_path / file_name(first, 1)).write_bytes(b"broken")
    tiny.picture(2).convert("L").save(tmp_path / file_name(second, 0))
    tiny.picture(2, 20, 20).save(tmp_path / file_name(second, 1))
    generated, _ = collect(tmp_path, benchmark_data)
    result = dreambench.score(generated, benchmark_data, dino, clip, Cache())
    assert [row.file for row in result.pictures] == ["vase/00_0.png", "vase/01_0.png"]
    assert {(p.file, p.kind) for p in result.problems} == {
        ("vase/00_1.png", "unreadable"),
        ("vase/01_0.png", "grey"),
        ("vase/01_1.png", "tiny"),
    }


def test_a_broken_reference_is_reported_and_the_others_count(tmp_path, dino, clip):
    data = tiny.dreambench(tmp_path / "dreambooth")
    (data / "dataset" / "rc_car" / "01.png").write_bytes(b"broken")
    benchmark = benchmarks.read("dreambench", data)
    generated, _ = collect(tiny.run(tmp_path / "run", data, seeds=1), benchmark)
    result = dreambench.score(generated, benchmark, dino, clip, Cache())
    assert [(p.file, p.kind) for p in result.problems] == [("rc_car/01.png", "unreadable")]
    assert {row.weight("dino_i") for row in result.pictures if row.subject == "rc_car"} == {2.0}
    assert result.counted("dino_i") == len(benchmark.samples)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(359, 1, 2), (1, 359, 2), (0, 180, 180), (10, 350, 20), (90, 90, 0), (181, 0, 179)]
)
def test_azimuth_goes_the_short_way_round(a, b, expected):
    assert pose.azimuth_difference(a, b) == expected


def test_polar_angles_do_not_wrap():
    assert pose.polar_difference(-89, 89) == 178


def test_recall_needs_both_angles_below_k():
    near = pose.compare(Orientation(359, 0, 0, 1), Orientation(3, 4, 0, 1))
    assert (near["azimuth"], near["polar"], near["recall"]) == (4, 4, 1.0)
    one = pose.compare(Orientation(0, 0, 0, 1), Orientation(0, 12, 0, 1))
    assert [one[f"recall@{k}"] for k in pose.LIMITS] == [0, 0, 1, 1] and one["recall"] == 0.5
    assert pose.compare(Orientation(0, 0, 0, 1), Orientation(5, 0, 0, 1))["recall@5"] == 0  # below, not at


def test_pose_is_a_direct_computation_on_the_detectors_crops(pictures, benchmark_data, detector, orientation):
    generated, _ = collect(pictures, benchmark_data)
    result = pose.score(generated, benchmark_data, detector, orientation, Cache())
    azimuths, polars, copies = [], [], {5: [], 10: [], 15: [], 20: []}
    for picture in generated:
        angles = []
        for path in (picture.sample.inputs[0], picture.path):
            image = Image.open(path).convert("RGB")
            boxes = detector.detect(image, picture.sample.subjects[0].words)
            angles.append(orientation.estimate([cut(image, boxes[0] if boxes else None, 0.85)])[0])
        turn = np.angle(np.exp(1j * np.radians(angles[0].azimuth - angles[1].azimuth)), deg=True)
        azimuths.append(abs(turn))
        polars.append(abs(angles[0].polar - angles[1].polar))
        for k, found in copies.items():
            found.append(round(azimuths[-1], 6) < k and polars[-1] < k)
    assert result.mean("azimuth") == pytest.approx(np.mean(azimuths), abs=1e-5)
    assert result.mean("polar") == pytest.approx(np.mean(polars), abs=1e-5)
    assert result.mean("recall") == pytest.approx(np.mean([np.mean(found) for found in copies.values()]), abs=1e-5)
    assert len(set(azimuths)) > 2  # the models see differences


def test_a_copied_reference_has_no_pose_variation(tmp_path, benchmark_data, detector, orientation):
    for sample in benchmark_data.samples:
        path = tmp_path / file_name(sample, 0)
        path.parent.mkdir(exist_ok=True)
        Image.open(sample.inputs[0]).save(path)
    generated, _ = collect(tmp_path, benchmark_data)
    result = pose.score(generated, benchmark_data, detector, orientation, Cache())
    assert (result.mean("azimuth"), result.mean("polar"), result.mean("recall")) == (0, 0, 1)


def test_unsure_poses_are_reported_and_left_out_only_when_asked(pictures, benchmark_data, detector, orientation):
    generated, _ = collect(pictures, benchmark_data)
    everything = pose.score(generated, benchmark_data, detector, orientation, Cache())
    confidences = [row.details["confidence"] for row in everything.pictures]
    limit = (min(confidences) + max(confidences)) / 2
    unsure = sum(confidence < limit for confidence in confidences)
    assert 0 < unsure < len(generated)
    some = pose.score(generated, benchmark_data, detector, orientation, Cache(), min_confidence=limit)
    assert len(everything.pictures) == len(generated) and len(some.pictures) == len(generated) - unsure
    left_out = [p.file for p in some.problems if "confidence" in p.text and not p.scored]
    assert len(left_out) == unsure
    assert everything.settings["confidence at least 0.5"]["pictures"] == sum(c >= 0.5 for c in confidences)


class Finder:
    """A detector whose boxes are known; everything else is real."""

    def __init__(self, detector, boxes):
        self.spec, self.boxes = detector.spec, boxes

    def detect(self, picture, words):
        return self.boxes.get(words, [])


def test_ip_sim_is_the_best_of_the_top_three_and_zero_where_nothing_is_found(
    tmp_path, dino, detector, benchmark_data
):
    from dataclasses import replace

    dog, car = (benchmark_data.find(name, 0).subjects[0] for name in ("dog6", "rc_car"))
    sample = replace(benchmark_data.find("dog6", 0), subject="both", subjects=(dog, car))
    benchmark = replace(benchmark_data, name="XVerseBench", samples=[sample], seeds=1)
    picture = tiny.picture(77, 100, 80)
    reference = Image.open(dog.references[0]).convert("RGB")
    picture.paste(reference.resize((40, 36)), (0, 0))  # only the fourth box shows it
    (tmp_path / "both").mkdir()
    picture.save(tmp_path / file_name(sample, 0))
    boxes = [
        Detection(50, 10, 90, 40, 0.9),
        Detection(1, 1, 2, 2, 0.85),
        Detection(20, 30, 80, 70, 0.8),
        Detection(60, 0, 99, 79, 0.7),
    ]
    boxes.append(Detection(0, 0, 40, 36, 0.6))
    generated, _ = collect(tmp_path, benchmark)
    result = ip_sim.score(generated, benchmark, Finder(detector, {"dog": boxes}), dino, Cache())
    kept = large_enough(boxes, 100)[:3]
    assert boxes[1] not in kept and boxes[-1] not in kept
    similar = cosine_similarity(
        dino.encode([reference]).numpy(), dino.encode([cut(picture, box) for box in kept]).numpy()
    )
    row = result.pictures[0]
    assert row.details["subjects"]["dog6"] == pytest.approx(100 * similar.max(), abs=1e-4)
    assert row.details["subjects"]["rc_car"] == 0
    assert row.score("ip_sim") == pytest.approx(50 * similar.max(), abs=1e-4)
    assert any('no "toy"' in p.text for p in result.problems)


def test_the_stand_in_for_msic_says_so_and_has_1_to_12_subjects(tmp_path, dino, clip):
    names = [f"thing{i}" for i in range(13)]
    data = tmp_path / "dreambooth" / "dataset"
    for i, name in enumerate(names):
        (data / name).mkdir(parents=True)
        tiny.picture(i).save(data / name / "00.png")
    _, _, tail = tiny.PROMPTS_AND_CLASSES.partition("Prompts\n")
    classes = "Classes\n\nsubject_name,class\n" + "".join(f"{name},{name}\n" for name in names)
    (data / "prompts_and_classes.txt").write_text(classes + "\nPrompts\n" + tail)
    benchmark = benchmarks.read("multi-subject", tmp_path / "dreambooth")
    counts = [len(sample.subjects) for sample in benchmark.samples]
    assert sorted(set(counts)) == list(range(1, 13))
    for sample in benchmark.samples:
        words = [subject.words for subject in sample.subjects]
        assert len(set(words)) == len(words) and all(word in sample.text for word in words)
    again = benchmarks.read("multi-subject", tmp_path / "dreambooth")
    assert [s.text for s in again.samples] == [s.text for s in benchmark.samples]

    run = tmp_path / "run"
    for i, sample in enumerate(benchmark.samples[::5]):
        path = run / file_name(sample, 0)
        path.parent.mkdir(parents=True)
        tiny.picture(500 + i).save(path)
    generated, _ = collect(run, benchmark)
    result = multi_subject.score(generated, benchmark, dino, clip, Cache())
    assert stand_in.NOTE in result.notes and result.table == "MSIC"
    assert len({row.category for row in result.pictures}) == 12
    last = generated[-1]
    pairs = cosine_similarity(
        dino.encode([Image.open(last.path)]).numpy(),
        dino.encode([Image.open(p) for p in last.sample.inputs]).numpy(),
    )
    assert result.pictures[-1].score("dino_i") == pytest.approx(pairs.mean(), abs=1e-5)
    plain_mean = np.mean([row.score("dino_i") for row in result.pictures])
    assert result.mean("dino_i") == pytest.approx(plain_mean, abs=1e-9)


RED, DOG = Detection(0, 0, 40, 40, 0.9), Detection(60, 0, 100, 40, 0.9)


@pytest.mark.parametrize(
    ("boxes", "similar", "expected"),
    [
        ({"a": [RED], "b": [DOG]}, {"a": [(0.9, 0.1)], "b": [(0.1, 0.8)]}, {"a": "kept", "b": "kept"}),
        ({"a": [RED], "b": [DOG]}, {"a": [(0.1, 0.9)], "b": [(0.8, 0.1)]}, {"a": "swapped", "b": "swapped"}),
        ({"a": [RED], "b": [RED]}, {"a": [(0.9, 0.1)], "b": [(0.1, 0.8)]}, {"a": "fused", "b": "fused"}),
        ({"a": [RED], "b": []}, {"a": [(0.9, 0.1)], "b": []}, {"a": "kept", "b": "missing"}),
        (
            {"a": [RED, DOG], "b": [RED, DOG]},
            {k: [(0.9, 0.1), (0.1, 0.8)] for k in "ab"},
            {"a": "kept", "b": "kept"},
        ),
        (
            {"a": [RED], "b": [DOG]},
            {"a": [(0.9, 0.1)], "b": [(0.9, 0.4)]},
            {"a": "kept", "b": "swapped"},
        ),  # a clone
    ],
    ids=["apart", "exchanged", "one thing for two", "one is not there", "one name for both", "two of one"],
)
def test_what_became_of_each_subject_is_known_by_hand(boxes, similar, expected):
    likeness = {name: [dict(zip("ab", pair)) for pair in pairs] for name, pairs in similar.items()}
    found = regions.outcomes(boxes, likeness)
    assert {name: outcome for name, (outcome, _) in found.items()} == expected
    assert all(like == 0 for name, (outcome, like) in found.items() if outcome == "missing")


def test_a_threshold_loses_what_is_like_nobody():
    found = regions.outcomes({"a": [RED]}, {"a": [{"a": 0.3}]}, threshold=0.5)
    assert found == {"a": ("swapped", 0.3)}
    assert regions.outcomes({"a": [RED]}, {"a": [{"a": 0.3}]}) == {"a": ("kept", 0.3)}


def test_overlap_is_intersection_over_union():
    assert regions.overlap(RED, RED) == 1 and regions.overlap(RED, DOG) == 0
    assert regions.overlap(RED, Detection(20, 0, 60, 40, 1)) == pytest.approx(20 / 60)


def test_two_copies_of_one_subject_are_a_collapse_that_the_whole_picture_does_not_show(
    tmp_path, dino, detector, benchmark_data
):
    from dataclasses import replace

    dog, car = (benchmark_data.find(name, 0).subjects[0] for name in ("dog6", "rc_car"))
    sample = replace(benchmark_data.find("dog6", 0), subject="both", subjects=(dog, car))
    benchmark = replace(benchmark_data, name="both", samples=[sample], seeds=2)
    (tmp_path / "both").mkdir()
    pictures = [Image.open(each.references[0]).convert("RGB").resize((48, 48)) for each in (dog, car)]
    for seed, (left, right) in enumerate((pictures, (pictures[0], pictures[0]))):
        canvas = Image.new("RGB", (100, 50), "white")
        canvas.paste(left, (0, 0))
        canvas.paste(right, (50, 0))
        canvas.save(tmp_path / file_name(sample, seed))
    places = {dog.words: [Detection(0, 0, 48, 48, 0.9)], car.words: [Detection(50, 0, 98, 48, 0.9)]}
    generated, _ = collect(tmp_path, benchmark)
    result = regions.score(generated, benchmark, Finder(detector, places), dino, Cache())
    sound, collapsed = sorted(result.pictures, key=lambda row: row.seed)
    assert (sound.score("kept"), sound.score("lost")) == (1, 0)
    assert (collapsed.score("kept"), collapsed.score("swapped"), collapsed.score("lost")) == (0.5, 0.5, 0.5)
    assert sound.score("found") == collapsed.score("found") == 1
    assert sound.score("identity") > collapsed.score("identity")
