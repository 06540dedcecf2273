"""The ground the other tests stand on: the right modules are loaded, the server runs graphs."""

import pytest
from comfy_server import GraphError
from comfy_workflow import workflow_to_prompt
from PIL import Image


def test_comfyui_modules_are_comfyuis_own(pack, comfyui_path):
    import execution

    import nodes

    assert str(comfyui_path) in nodes.__file__ and str(comfyui_path) in execution.__file__
    assert "KSampler" in nodes.NODE_CLASS_MAPPINGS


def test_the_pack_has_one_name(pack):
    """`isinstance` between nodes and the method holds only when both come from the pack."""
    states = pack("squeeze_core.mllm.states")
    assert states.LayerStates is pack("squeeze_core.mllm.backbone").LayerStates
    assert states.__name__ == "squeeze_pack.squeeze_core.mllm.states"


def test_tiny_flux_samples(comfy, tiny_flux, clean_memory):
    import comfy.sample
    import torch

    model = tiny_flux()
    positive = [[torch.randn(1, 4, 64), {"pooled_output": torch.zeros(1, 768)}]]
    noise = torch.randn(1, 16, 8, 8)
    settings = (noise, 2, 1.0, "euler", "simple", positive, positive, torch.zeros_like(noise))
    latent = comfy.sample.sample(model, *settings, disable_pbar=True)
    assert latent.shape == noise.shape and torch.isfinite(latent).all()


def test_tiny_vae_encodes_to_16_channels_and_back(tiny_vae, clean_memory):
    import torch

    picture = torch.rand(1, 64, 96, 3)
    latent = tiny_vae.encode(picture)
    assert latent.shape == (1, 16, 8, 12)
    assert tiny_vae.decode(latent).shape == picture.shape


@pytest.fixture
def picture_name(server, tmp_path):
    Image.new("RGB", (32, 16), (200, 30, 30)).save(tmp_path / "red.png")
    return server.upload_image(tmp_path / "red.png")


def saving_graph(picture_name: str) -> dict:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture_name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t"}},
    }


def test_server_runs_a_graph_and_caches_it(server, picture_name):
    outputs = server.run_graph(saving_graph(picture_name))
    assert server.image(outputs["2"]["images"][0])[:4] == b"\x89PNG"
    again = server.submit(saving_graph(picture_name))
    assert server.executed_nodes(again) == set()


def test_server_names_the_fault_of_a_refused_graph(server):
    with pytest.raises(GraphError, match="NoSuchNode"):
        server.run_graph({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_workflow_of_the_page_runs_as_a_graph(server, picture_name):
    """Widgets in order, a reroute, a bypassed node, a growing input, and the value behind a seed."""
    workflow = {
        "nodes": [
            {"id": 1, "type": "LoadImage", "inputs": [], "widgets_values": [picture_name, "image"]},
            {"id": 2, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]},
            {
                "id": 3,
                "type": "ImageInvert",
                "mode": 4,
                "inputs": [{"name": "image", "type": "IMAGE", "link": 2}],
            },
            {
                "id": 4,
                "type": "BatchImagesNode",
                "inputs": [
                    {"name": "images.image0", "type": "IMAGE", "link": 3},
                    {"name": "images.image1", "type": "IMAGE", "link": 4},
                    {"name": "images.image2", "type": "IMAGE", "link": None},
                ],
            },
            {
                "id": 5,
                "type": "SaveImage",
                "inputs": [{"name": "images", "type": "IMAGE", "link": 5}],
                "widgets_values": ["t"],
            },
            {"id": 6, "type": "RandomNoise", "inputs": [], "widgets_values": [7, "randomize"]},
            {"id": 7, "type": "MarkdownNote", "inputs": [], "widgets_values": ["hello"]},
        ],
        "links": [
            [1, 1, 0, 2, 0, "*"],
            [2, 2, 0, 3, 0, "IMAGE"],
            [3, 3, 0, 4, 0, "IMAGE"],
            [4, 1, 0, 4, 1, "IMAGE"],
            [5, 4, 0, 5, 0, "IMAGE"],
        ],
    }
    prompt = workflow_to_prompt(workflow, server.object_info())
    assert prompt["4"]["inputs"] == {"images.image0": ["1", 0], "images.image1": ["1", 0]}
    assert prompt["6"]["inputs"] == {"noise_seed": 7}
    assert set(prompt) == {"1", "4", "5", "6"}
    del prompt["6"]
    assert len(server.run_graph(prompt)["5"]["images"]) == 2


def test_an_error_of_a_run_is_the_sentence_without_a_path_of_modules(server):
    graph = {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {"subject": 0}},
        "prompt": {"class_type": "SqueezeEncode", "inputs": {"mllm": ["toy", 2], "prompt": "a", "tiles": 1}},
        "pooled": {
            "class_type": "SqueezeAggregate",
            "inputs": {"states": ["prompt", 0], "dla": ["toy", 3], "text_layers": "all", "image_layers": "900"},
        },
        "save": {
            "class_type": "SqueezeSaveConditioning",
            "inputs": {"conditioning": ["pooled", 0], "filename_prefix": "x"},
        },
    }
    entry = server.wait(server.submit(graph))
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert error["exception_type"] == "SqueezeError"
