"""Start-up, memory and interrupts as a user meets them: through the server."""

from __future__ import annotations

import pytest
from comfy_workflow import aggregate
from PIL import Image

PACK_SECONDS = 0.5


def toy_graph(picture: str, prompt: str = "a red hat") -> dict:
    """Encode a prompt with a picture by the toy world's MLLM, aggregate, and show the layers."""
    return {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "encode": {
            "class_type": "SqueezeEncode",
            "inputs": {"mllm": ["toy", 2], "prompt": prompt, "images.picture_1": ["picture", 0]},
        },
        "aggregate": aggregate(),
        "layers": {"class_type": "SqueezeShowLayers", "inputs": {"weights": ["aggregate", 2]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["layers", 0]}},
    }


@pytest.fixture
def picture(server, tmp_path) -> str:
    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(tmp_path / "gradient.png")
    return server.upload_image(tmp_path / "gradient.png")


def inner_models(server) -> set[str]:
    return {name for entry in server.loaded_models() for name in entry["inner"]}


def test_the_pack_adds_at_most_half_a_second_to_the_start(server):
    assert server.pack_import_seconds() <= PACK_SECONDS


def test_starting_imports_no_library_that_comfyui_does_not(server):
    """They are imported when first used. transformers is ComfyUI's own."""
    modules = server.modules_at_start()
    assert "torch" in modules
    assert not {"diffusers", "accelerate", "peft"} & modules


def test_all_models_come_back_after_free(server, picture):
    mine = {"InternVLForConditionalGeneration", "Aggregator"}
    shown = server.run_graph(toy_graph(picture))["show"]["images"]
    assert mine <= inner_models(server)
    assert server.free() == []
    again = server.run_graph(toy_graph(picture))["show"]["images"]  # /free forgets results as well
    assert mine <= inner_models(server)
    assert server.image(again[0]) == server.image(shown[0])


def test_interrupt_while_encoding_leaves_nothing_behind(server, picture):
    """The graph ends as interrupted, between two layers; the same graph then runs as if nothing was."""
    graph = toy_graph(picture, "a hat " * 2500)  # some seconds on a CPU
    with server.events() as events:
        prompt_id = server.submit(graph)
        events.receive("progress", node="encode")
        server.interrupt()
        entry = server.wait(prompt_id)
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds, kinds
    after = server.run_graph(graph)["show"]["images"]
    server.free()
    fresh = server.run_graph(graph)["show"]["images"]
    assert server.image(after[0]) == server.image(fresh[0])
