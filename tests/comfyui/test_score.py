"""Score Pictures on the real server: the numbers of the headless measures, the best picture, clear refusals."""

import importlib.util
import math
import time
from pathlib import Path

import numpy as np
import pytest
from comfy_server import GraphError
from PIL import Image

from squeeze_core.evaluation.scoring import score
from squeeze_core.vision.backbones import load_clip, load_dino
from squeeze_core.vision.orientation import load_orientation

_SPEC = importlib.util.spec_from_file_location(
    "tiny_scorers", Path(__file__).resolve().parents[1] / "evaluation" / "models.py"
)
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

PROMPT = "a dog in snow"


@pytest.fixture(scope="module")
def models(server):
    """Tiny models where the node looks for real ones."""
    folder = server.base / "models" / "evaluation"
    return {
        "dino": tiny.dino(folder / "dino-vits16"),
        "clip": tiny.clip(folder / "clip-vit-base-patch32"),
        "orientation": tiny.orient_anything(folder / "Orient-Anything"),
    }


@pytest.fixture(scope="module")
def shown(server, models, tmp_path_factory):
    """Names on the server -> pictures: the first is the reference, and is also among the generated."""
    folder = tmp_path_factory.mktemp("pictures")
    made = {}
    for number in range(3):
        path = folder / f"score_{number}.png"
        tiny.picture(number, 96, 96).save(path)
        made[server.upload_image(path)] = Image.open(path).convert("RGB")
    return made


def graph(shown, **changes) -> dict:
    names = list(shown)
    graph = {f"load {n}": {"class_type": "LoadImage", "inputs": {"image": name}} for n, name in enumerate(names)}
    graph["pair"] = {"class_type": "ImageBatch", "inputs": {"image1": ["load 1", 0], "image2": ["load 0", 0]}}
    graph["batch"] = {"class_type": "ImageBatch", "inputs": {"image1": ["pair", 0], "image2": ["load 2", 0]}}
    inputs = {
        "generated": ["batch", 0],
        "images.picture_1": ["load 0", 0],
        "prompt": PROMPT,
        "dino": "dino-vits16",
        "clip": "clip-vit-base-patch32",
        "orientation": "Orient-Anything",
        "rank_by": "identity",
    }
    graph["score"] = {"class_type": "SqueezeScore", "inputs": {**inputs, **changes}}
    for number, name in enumerate(("identity", "text", "pose", "best", "report")):
        graph[name] = {"class_type": "PreviewAny", "inputs": {"source": ["score", number]}}
    return graph


def numbers(outputs, name) -> list[float]:
    return [float(text) for text in outputs[name]["text"]]


def test_the_node_gives_the_numbers_of_the_headless_measures(server, shown, models):
    outputs = server.run_graph(graph(shown))
    pictures = list(shown.values())
    expected = score(
        [pictures[1], pictures[0], pictures[2]],
        [pictures[0]],
        PROMPT,
        dino=load_dino(models["dino"]),
        clip=load_clip(models["clip"]),
        orientation=load_orientation(models["orientation"]),
        rank_by="identity",
    )
    assert np.allclose(numbers(outputs, "identity"), expected.identity, atol=1e-5)
    assert np.allclose(numbers(outputs, "text"), expected.text, atol=1e-5)
    assert numbers(outputs, "pose") == expected.pose
    assert np.std(expected.identity) > 1e-3 and np.std(expected.text) > 1e-4  # the check could fail
    assert numbers(outputs, "best") == [1] and expected.identity[1] == pytest.approx(1, abs=1e-6)
    assert outputs["report"]["text"][0] == expected.report()


def test_what_is_not_chosen_is_not_measured_and_said_so(server, shown):
    outputs = server.run_graph(graph(shown, dino="(none)", orientation="(none)", prompt=""))
    assert all(map(math.isnan, numbers(outputs, "text") + numbers(outputs, "pose")))
    assert "CLIP (clip-vit-base-patch32)" in outputs["report"]["text"][0]


def test_a_wish_that_cannot_be_met_gives_one_sentence(server, shown):
    with pytest.raises(GraphError, match="ranked by pose, which was not measured"):
        server.run_graph(graph(shown, orientation="(none)", rank_by="pose"))
    nothing = {"dino": "(none)", "clip": "(none)", "orientation": "(none)"}
    with pytest.raises(GraphError, match="Choose at least one model"):
        server.run_graph(graph(shown, **nothing))


def test_a_missing_model_names_its_download(server, shown):
    with pytest.raises(GraphError, match="hf download facebook/dino-vits16"):
        server.run_graph(graph(shown, dino="dino-vits8"))


def test_with_no_model_at_all_the_download_is_named(pack, monkeypatch):
    """The choices are then (none) three times, and to choose another is no help."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: ["/nowhere/evaluation"])
    node = pack("nodes.score").Score
    refusal = node.validate_inputs("(none)", "(none)", "(none)")
    assert "models/evaluation" in refusal and "hf download openai/clip-vit-base-patch32" in refusal
    assert node.validate_inputs(None, "(none)", "(none)") is True  # connected to another node


def test_the_models_are_gone_when_the_node_is_done(server, shown):
    server.run_graph(graph(shown, prompt="another prompt"))
    for _ in range(60):  # what an error's traceback holds goes with the server's next collection, in ten seconds
        held = {entry["model"] for entry in server.loaded_models()} & {"ViTModel", "CLIPModel", "OrientationModel"}
        if not held:
            break
        time.sleep(0.5)
    assert not held
