"""Pick Best on the real server: the picture that keeps both subjects, with everybody's scores."""

import importlib.util
import io as streams
import json
from pathlib import Path

import numpy as np
import pytest
from comfy_server import GraphError
from PIL import Image

_SPEC = importlib.util.spec_from_file_location(
    "tiny_scorers_of_scenes", Path(__file__).resolve().parents[1] / "evaluation" / "models.py"
)
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

HAND = {
    "subjects": [{"number": 1, "name": "cat", "picture": 1}, {"number": 2, "name": "dog", "picture": 2}],
    "grid": ["1 1 1 1 2 2 2 2"] * 8,
}


@pytest.fixture(scope="module")
def names(server, tmp_path_factory):
    """Names on the server: two references, and pictures with both in place and with both swapped."""
    folder = server.base / "models" / "evaluation"
    tiny.dino(folder / "dino-vits16")
    tiny.clip(folder / "clip-vit-base-patch32")
    folder = tmp_path_factory.mktemp("pictures")
    cat, dog = (tiny.picture(seed, 64, 64) for seed in (1, 2))
    made = {"cat": cat, "dog": dog}
    for name, pair in {"swapped": (dog, cat), "kept": (cat, dog)}.items():
        made[name] = Image.new("RGB", (128, 64))
        made[name].paste(pair[0], (0, 0))
        made[name].paste(pair[1], (64, 0))
    for name, picture in made.items():
        picture.save(folder / f"best_{name}.png")
    return {name: server.upload_image(folder / f"best_{name}.png") for name in made}


def graph(names, **changes) -> dict:
    graph = {f"load {name}": {"class_type": "LoadImage", "inputs": {"image": file}} for name, file in names.items()}
    inputs = {"text": json.dumps(HAND), "pick": 1, "width": 128, "height": 64}
    best = {
        "generated": ["batch", 0],
        "plan": ["edit", 0],
        "images.picture_1": ["load cat", 0],
        "images.picture_2": ["load dog", 0],
        "prompt": "a cat and a dog",
        "dino": "dino-vits16",
        "clip": "clip-vit-base-patch32",
        "rule": "smallest_identity",
    }
    batch = {"image1": ["load swapped", 0], "image2": ["load kept", 0]}
    return graph | {
        "batch": {"class_type": "ImageBatch", "inputs": batch},
        "edit": {"class_type": "SqueezeEditPlan", "inputs": inputs},
        "pick": {"class_type": "SqueezePickBest", "inputs": best | changes},
        "image": {"class_type": "PreviewImage", "inputs": {"images": ["pick", 0]}},
        "sheet": {"class_type": "PreviewImage", "inputs": {"images": ["pick", 1]}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["pick", 2]}},
        "best": {"class_type": "PreviewAny", "inputs": {"source": ["pick", 3]}},
    }


def test_the_picture_that_keeps_both_is_given_with_all_scores(server, names):
    outputs = server.run_graph(graph(names))
    assert outputs["best"]["text"][0] == "1"
    shown = Image.open(streams.BytesIO(server.image(outputs["image"]["images"][0]))).convert("RGB")
    cat = tiny.picture(1, 64, 64)
    assert np.abs(np.asarray(shown, int)[:, :64] - np.asarray(cat, int)).max() <= 1
    report = outputs["report"]["text"][0]
    assert "0/2" in report and "2/2" in report and "smallest_identity" in report
    assert Image.open(streams.BytesIO(server.image(outputs["sheet"]["images"][0]))).width > 800


def test_a_choice_that_cannot_be_made_gives_one_sentence(server, names):
    with pytest.raises(GraphError, match="needs CLIP and a prompt"):
        server.run_graph(graph(names, rule="clip_t", prompt=""))
    with pytest.raises(GraphError, match="hf download facebook/dino-vits16"):
        server.run_graph(graph(names, dino="dino-vits8"))
