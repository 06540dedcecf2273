"""Backbones give what torchvision and transformers give, and say exactly what they are."""

import hashlib
import json

import pytest
import torch
from torchvision import transforms

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.cache import Cache
from squeeze_core.evaluation.embedding import Files, embed
from squeeze_core.vision.backbones import load_clip, load_dino
from squeeze_core.vision.batches import in_batches
from squeeze_core.vision.detector import Detection, cut, large_enough, load_detector
from squeeze_core.vision.orientation import load_orientation, read_angles
from squeeze_core.vision.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from squeeze_core.vision.registry import KNOWN, candidates, locate

from ..evaluation import models as tiny

SIZES = [(80, 60), (60, 81), (57, 57), (300, 41), (33, 500)]


def torchvision_pixels(pictures, resize, crop, mean, std):
    prepare = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return torch.stack([prepare(picture) for picture in pictures])


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_is_torchvisions(size):
    picture = tiny.picture(3, *size)
    mine = Preprocessing(64, 56)(picture)
    theirs = torchvision_pixels([picture], 64, 56, IMAGENET_MEAN, IMAGENET_STD)[0]
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_dino_is_the_class_token_of_a_direct_call(model_root, dino):
    from transformers import AutoModel

    pictures = [tiny.picture(i, *size) for i, size in enumerate(SIZES)]
    model = AutoModel.from_pretrained(model_root / "dino-vits16", add_pooling_layer=False).eval()
    pixels = torchvision_pixels(pictures, 64, 56, IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        states = model(pixels).last_hidden_state[:, 0]
    assert torch.allclose(dino.encode(pictures), states / states.norm(dim=1, keepdim=True), atol=1e-5)


def test_clip_is_a_direct_call_of_transformers(model_root, clip):
    from transformers import CLIPModel, CLIPTokenizer

    folder = model_root / "clip-vit-base-patch32"
    pictures = [tiny.picture(i, *size) for i, size in enumerate(SIZES)]
    texts = ["a dog in the snow", "a red vase", "a toy " * 40]
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    pixels = torchvision_pixels(pictures, 48, 48, CLIP_MEAN, CLIP_STD)
    with torch.no_grad():
        output = model(**tokens, pixel_values=pixels)
    assert torch.allclose(clip.encode(pictures), output.image_embeds, atol=1e-5)
    assert torch.allclose(clip.encode_texts(texts), output.text_embeds, atol=1e-5)


def test_a_prompt_longer_than_clip_reads_is_noticed(clip):
    assert not clip.is_too_long("a" * 75)  # one token a letter here, and two for begin and end
    assert clip.is_too_long("a" * 76)


def test_the_spec_tells_weights_resize_and_crop(model_root, dino, clip):
    weights = (model_root / "dino-vits16" / "model.safetensors").read_bytes()
    assert dino.spec.weights == hashlib.sha256(weights).hexdigest()
    assert dino.spec.preprocessing["resize"] == 64 and dino.spec.preprocessing["crop"] == 56
    assert dino.spec.key != clip.spec.key


def test_the_published_sizes_mean_resize_256_and_crop_224(tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=224
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "dino")
    prepare = load_dino(tmp_path / "dino").prepare
    assert (prepare.resize, prepare.crop, prepare.interpolation) == (256, 224, "bicubic")


def test_the_revision_is_read_from_where_hf_download_leaves_it(tmp_path):
    folder = tiny.dino(tmp_path / "dino-vits16")
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "model.safetensors.metadata").write_text("0123abcd\netag\n1.0\n")
    assert load_dino(folder).spec.revision == "0123abcd"


def test_a_snapshot_in_the_shared_cache_is_found_with_its_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--facebook--dino-vits16"
    tiny.dino(repository / "snapshots" / "4567cdef")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("4567cdef")
    spec = load_dino(locate("dino", tmp_path / "models")).spec
    assert (spec.repository, spec.revision, spec.name) == ("facebook/dino-vits16", "4567cdef", "dino-vits16")


@pytest.mark.parametrize("role", sorted(KNOWN))
def test_a_missing_model_names_its_download_line(tmp_path, monkeypatch, role):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SqueezeError, match="hf download") as error:
        locate(role, tmp_path / "models")
    folder = tmp_path / "models" / KNOWN[role].repository.split("/")[1]
    parts = ("hf download", KNOWN[role].repository, KNOWN[role].file, f"--local-dir {folder}")
    assert " ".join(part for part in parts if part) in str(error.value)


def test_models_are_found_by_name_and_listed_by_kind(model_root):
    assert locate("dino", model_root) == model_root / "dino-vits16"
    for role in KNOWN:
        assert [folder.name for folder in candidates(role, [model_root])] == [KNOWN[role].repository.split("/")[1]]


@pytest.mark.parametrize(
    ("load", "name"),
    [(load_dino, "clip-vit-base-patch32"), (load_clip, "dino-vits16"), (load_detector, "dino-vits16")],
)
def test_another_kind_of_model_is_refused(model_root, load, name):
    with pytest.raises(SqueezeError, match="holds a model of type"):
        load(model_root / name)


@pytest.mark.parametrize("make, load", [(tiny.dino, load_dino), (tiny.grounding_dino, load_detector)])
def test_weights_that_lack_a_tensor_are_refused_rather_than_filled_at_random(tmp_path, make, load):
    from safetensors.torch import load_file, save_file

    folder = make(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    lost = sorted(state)[5]
    save_file({k: v for k, v in state.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SqueezeError, match=r"lacks .*hf download"):
        load(folder)


def test_truncated_weights_are_refused_with_a_sentence(tmp_path):
    folder = tiny.dino(tmp_path / "dino")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SqueezeError, match="hf download"):
        load_dino(folder)


@pytest.mark.parametrize(("bins", "rotation"), [(902, 180), (722, 90)])
def test_orient_anything_is_a_direct_call_of_dinov2_and_its_head(tmp_path, bins, rotation):
    from torch import nn
    from transformers import Dinov2Config, Dinov2Model

    folder = tiny.orient_anything(tmp_path / "Orient-Anything", bins)
    orientation = load_orientation(folder)
    pictures = [tiny.picture(i, 70, 90) for i in range(4)]
    state = torch.load(folder / "ronormsigma1" / "dino_weight.pt")
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, patch_size=14, image_size=70, mlp_ratio=4
    )
    body = Dinov2Model(config).eval()
    body.load_state_dict({k[7:]: v for k, v in state.items() if k.startswith("dinov2.")})
    head = nn.Sequential(
        nn.Linear(64, bins), nn.BatchNorm1d(bins), nn.ReLU(), nn.Linear(bins, bins), nn.BatchNorm1d(bins)
    ).eval()
    names = {"net1.0": 0, "net1.1": 1, "net2.0": 3, "net2.1": 4}
    for name, place in names.items():
        prefix = f"down_sampler.{name}."
        head[place].load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    pixels = torchvision_pixels(pictures, 256, 224, IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        logits = head(body(pixels).last_hidden_state[:, 0])
        mine = orientation.model(pixels)
    assert torch.allclose(mine, logits, rtol=1e-5, atol=1e-5)
    for row, found in zip(logits, orientation.estimate(pictures)):
        assert found.azimuth == int(row[:360].argmax())
        assert found.polar == int(row[360:540].argmax()) - 90
        assert found.rotation == int(row[540:-2].argmax()) - rotation
        assert found.confidence == pytest.approx(float(row[-2:].softmax(0)[0]), abs=1e-5)


def test_angles_are_the_best_bins():
    logits = torch.zeros(1, 902)
    logits[0, 359] = logits[0, 360 + 100] = logits[0, 540 + 200] = 1
    logits[0, 900] = 2
    found = read_angles(logits)[0]
    assert (found.azimuth, found.polar, found.rotation) == (359, 10, 20) and found.confidence > 0.8


@pytest.mark.parametrize("break_it", ["extra", "missing", "text"])
def test_another_file_is_not_orient_anything(tmp_path, break_it):
    folder = tiny.orient_anything(tmp_path / "a")
    file = folder / "ronormsigma1" / "dino_weight.pt"
    state = torch.load(file)
    if break_it == "text":
        file.write_text("no weights")
    else:
        state.pop("down_sampler.net2.0.bias") if break_it == "missing" else state.update(other=torch.ones(1))
        torch.save(state, file)
    with pytest.raises(SqueezeError, match="hf download Viglong/Orient-Anything"):
        load_orientation(folder)


@pytest.mark.parametrize("kind", ["grounding_dino", "owl"])
def test_boxes_are_those_of_a_direct_call(tmp_path, kind):
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = getattr(tiny, kind)(tmp_path / kind)
    detector = load_detector(folder, threshold=1e-4)
    picture = tiny.picture(1, 90, 70)
    mine = detector.detect(picture, "Dog")
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    text = "dog." if kind == "grounding_dino" else [["a photo of Dog"]]
    inputs = processor(images=picture, text=text, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    scores = output.logits[0].sigmoid().max(-1).values
    x, y, w, h = output.pred_boxes[0].unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1) * torch.tensor([90, 70, 90, 70])
    corners = corners.clamp(torch.zeros(4), torch.tensor([90.0, 70.0, 90.0, 70.0]))
    wide = ((corners[:, 2:] - corners[:, :2]) >= 1).all(1)
    kept = wide & (scores > 1e-4)
    order = scores[kept].argsort(descending=True)
    assert mine and len(mine) == int(kept.sum())
    assert torch.allclose(torch.tensor([b.score for b in mine]), scores[kept][order], atol=1e-5)
    found = torch.tensor([(b.left, b.top, b.right, b.bottom) for b in mine])
    assert torch.allclose(found, corners[kept][order], atol=1e-3)


def test_a_crop_is_the_boxes_content_in_the_middle_of_a_square():
    picture = tiny.picture(2, 90, 70)
    square = cut(picture, Detection(10, 20, 50, 40, 1.0))
    assert square.size == (40, 40)
    assert square.crop((0, 10, 40, 30)).tobytes() == picture.crop((10, 20, 50, 40)).tobytes()
    assert square.getpixel((0, 0)) == (255, 255, 255)
    assert cut(picture, None).size == (90, 90)
    assert cut(picture, Detection(10, 20, 50, 40, 1.0), 0.5).size == (80, 80)


def test_small_boxes_do_not_count():
    boxes = [
        Detection(0, 0, 10, 10, 1),
        Detection(0, 0, 9, 10, 1),
        Detection(0, 0, 100, 2, 1),
        Detection(0, 0, 100, 1, 1),
    ]
    assert large_enough(boxes, 200) == [boxes[0], boxes[2]]


def test_a_second_run_computes_nothing_and_gives_the_same(tmp_path, dino):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        tiny.picture(i).save(path)
    first = embed(dino, paths, Files(), Cache(tmp_path / "cache"))

    class Idle:
        spec = dino.spec

        def encode(self, pictures):
            raise AssertionError("it is in the cache")

    again = embed(Idle(), paths, Files(), Cache(tmp_path / "cache"))
    assert all(torch.equal(first[path], again[path]) for path in paths)
    tiny.picture(9).save(paths[1])
    with pytest.raises(AssertionError):  # another picture under the same name
        embed(Idle(), paths, Files(), Cache(tmp_path / "cache"))


def test_a_damaged_cache_file_is_computed_again(tmp_path, dino):
    path = tmp_path / "a.png"
    tiny.picture(0).save(path)
    first = embed(dino, [path], Files(), Cache(tmp_path / "cache"))[path]
    for file in (tmp_path / "cache").rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(embed(dino, [path], Files(), Cache(tmp_path / "cache"))[path], first)


def test_the_batch_is_halved_until_it_fits_and_nothing_is_lost():
    sizes = []

    def work(batch):
        if len(batch) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        sizes.append(len(batch))
        return [2 * item for item in batch]

    assert in_batches(range(23), work, first=16) == [2 * i for i in range(23)]
    assert max(sizes) == 4 and len(sizes) == 6
    with pytest.raises(SqueezeError, match="single one"):
        in_batches([1], lambda batch: work([1] * 6))
    with pytest.raises(RuntimeError, match="shape"):
        in_batches([1], lambda batch: (_ for _ in ()).throw(RuntimeError("shape mismatch")))


def test_older_and_newer_preprocessor_files_mean_the_same(tmp_path):
    from squeeze_core.vision.preprocessing import read

    default = Preprocessing(1, 1)
    older = {"size": 224, "crop_size": 224, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    newer = older | {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    first = read(tmp_path, default)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": newer}))
    assert read(tmp_path, default) == first == Preprocessing(224, 224, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_what_is_wrong_with_a_file_is_told_again_when_all_is_cached(tmp_path, dino, monkeypatch):
    from squeeze_core.evaluation import pictures

    tiny.picture(0).convert("L").save(tmp_path / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"broken")
    tiny.picture(1, 20, 20).save(tmp_path / "small.png")
    paths = [tmp_path / name for name in ("grey.png", "broken.png", "small.png")]
    cache = tmp_path / "cache"
    first = Files(cache=Cache(cache))
    vectors = embed(dino, paths, first, Cache(cache))
    assert list(vectors) == paths[:1]
    assert [p.kind for p in first.all_problems()] == ["grey", "unreadable", "tiny"]
    opened = []
    real = pictures.read
    monkeypatch.setattr(pictures, "read", lambda path, name=None: opened.append(path) or real(path, name))
    again = Files(names={paths[0]: "other/name.png"}, cache=Cache(cache))
    assert torch.equal(embed(dino, paths, again, Cache(cache))[paths[0]], vectors[paths[0]])
    assert paths[0] not in opened  # only those without a vector are tried again
    assert [p.kind for p in again.all_problems()] == ["grey", "unreadable", "tiny"]
    assert again.problems[paths[0]][0].file == "other/name.png"
