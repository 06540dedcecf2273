"""Every node on the real server: registered, explained, and working together."""

import io as streams

import pytest
from comfy_server import GraphError
from comfy_workflow import aggregate
from PIL import Image
from skimage import data

NODES = {
    "SqueezeLoadMLLM",
    "SqueezeLoadAdapter",
    "SqueezeEncode",
    "SqueezeAggregate",
    "SqueezeWritePrompt",
    "SqueezeReferenceTokens",
    "SqueezeTimestepGate",
    "SqueezeSubject",
    "SqueezeApplyLayout",
    "SqueezeEncodePlan",
    "SqueezeSigmas",
    "SqueezeShowGate",
    "SqueezeShowLayers",
    "SqueezeSelectLayers",
    "SqueezeSaveConditioning",
    "SqueezeLoadConditioning",
    "SqueezeToyWorld",
    "SqueezeScore",
    "SqueezePlanScene",
    "SqueezeEditPlan",
    "SqueezePickBest",
}


@pytest.fixture(scope="module")
def cat(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "cat.png"
    Image.fromarray(data.cat()).save(path)
    return server.upload_image(path)


def toy_graph(cat: str, **changes) -> dict:
    """Two pictures of a cat to a picture; `changes` are inputs by "node.input"."""
    graph = {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
        "cat": {"class_type": "LoadImage", "inputs": {"image": cat}},
        "encode": {
            "class_type": "SqueezeEncode",
            "inputs": {
                "mllm": ["toy", 2],
                "prompt": "the cat of the picture on a red sofa",
                "images.picture_1": ["cat", 0],
            },
        },
        "aggregate": aggregate(),
        "references": {
            "class_type": "SqueezeReferenceTokens",
            "inputs": {"vae": ["toy", 1], "image": ["cat", 0], "long_side": 128, "placement": "auto"},
        },
        "gate": {
            "class_type": "SqueezeTimestepGate",
            "inputs": {
                "conditioning": ["aggregate", 0],
                "references": ["references", 0],
                "tau_1": 0.95,
                "tau_2": 0.85,
                "late": "drop",
                "guidance": 2.5,
            },
        },
        "sigmas": {
            "class_type": "SqueezeSigmas",
            "inputs": {"model": ["toy", 0], "steps": 8, "curve": "cosine", "denoise": 1.0},
        },
        "latent": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": 128, "height": 128, "batch_size": 1},
        },
        "sample": {
            "class_type": "SamplerCustom",
            "inputs": {
                "model": ["toy", 0],
                "add_noise": True,
                "noise_seed": 1,
                "cfg": 1.0,
                "positive": ["gate", 0],
                "negative": ["aggregate", 1],
                "sampler": ["euler", 0],
                "sigmas": ["sigmas", 0],
                "latent_image": ["latent", 0],
            },
        },
        "euler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["toy", 1]}},
        "result": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
        "show gate": {
            "class_type": "SqueezeShowGate",
            "inputs": {"conditioning": ["gate", 0], "sigmas": ["sigmas", 0]},
        },
        "gate picture": {"class_type": "PreviewImage", "inputs": {"images": ["show gate", 0]}},
        "show layers": {"class_type": "SqueezeShowLayers", "inputs": {"weights": ["aggregate", 2]}},
        "layers picture": {"class_type": "PreviewImage", "inputs": {"images": ["show layers", 0]}},
        "encoded": {"class_type": "PreviewImage", "inputs": {"images": ["references", 1]}},
    }
    for where, value in changes.items():
        node, name = where.split("__")
        graph[node]["inputs"][name] = value
    return graph


def picture(server, entry: dict) -> Image.Image:
    return Image.open(streams.BytesIO(server.image(entry)))


def test_every_node_is_registered_with_tooltips_and_a_help_page(server):
    info = server.object_info()
    assert {name for name in info if name.startswith("Squeeze")} == NODES
    for name in NODES:
        node = info[name]
        assert node["description"] and node["category"] == "Squeeze" and node["search_aliases"]
        for kind in ("required", "optional"):
            for given, specification in node["input"].get(kind, {}).items():
                assert specification[1].get("tooltip"), f"{name}.{given} has no tooltip"
        assert all(node["output_tooltips"]), f"{name} has an output without a tooltip"


def test_boxes_come_by_link_alone(server):
    """Of a plain BOUNDING_BOX input the page makes a widget, which then always holds a box of 512 px."""
    info = server.get("/object_info")
    sockets = [
        (node, name, options)
        for node, described in info.items()
        if node.startswith("Squeeze")
        for kind in described["input"].values()
        for name, (type_, options) in ((name, value) for name, value in kind.items() if len(value) == 2)
        if type_ == "BOUNDING_BOX"
    ]
    assert len(sockets) >= 4
    assert all(options.get("forceInput") for _, _, options in sockets), sockets


def test_the_toy_graph_makes_pictures(server, cat):
    outputs = server.run_graph(toy_graph(cat))
    assert picture(server, outputs["result"]["images"][0]).size == (128, 128)
    assert picture(server, outputs["encoded"]["images"][0]).size == (128, 80)  # 451 x 300, resized, not cropped
    for name in ("gate picture", "layers picture"):
        assert picture(server, outputs[name]["images"][0]).width >= 800


def test_only_what_changed_runs_again(server, cat):
    server.run_graph(toy_graph(cat))
    for changes in ({"gate__tau_1": 0.9}, {"sample__noise_seed": 2}, {"aggregate__image_layers": "0-3"}):
        ran = server.executed_nodes(server.submit(toy_graph(cat, **changes)))
        assert "sample" in ran and "encode" not in ran and "toy" not in ran, changes


def test_two_pictures_in_two_sockets_make_a_batch_of_two(server, cat):
    outputs = server.run_graph(toy_graph(cat, **{"encode__images.picture_2": ["cat", 0], "latent__batch_size": 2}))
    assert len(outputs["result"]["images"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate__tau_1": 0.5}, "tau_1"),
        ({"aggregate__text_layers": "5-2"}, "backwards"),
        ({"aggregate__text_layers": "0-99"}, "0-6"),
        ({"aggregate__image_layers": "x"}, "0-9,20-28"),
    ],
)
def test_a_wrong_value_gives_one_sentence(server, cat, change, message):
    with pytest.raises(GraphError, match=message):
        server.run_graph(toy_graph(cat, **change))


def test_a_missing_mllm_names_the_download(server):
    graph = {
        "load": {
            "class_type": "SqueezeLoadMLLM",
            "inputs": {"model": "LLM/InternVL3-8B-hf", "weight_dtype": "default", "device": "default"},
        },
        "write": {
            "class_type": "SqueezeWritePrompt",
            "inputs": {"mllm": ["load", 0], "instruction": "a cat", "style": "natural", "seed": 0},
        },
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["write", 0]}},
    }
    with pytest.raises(GraphError, match="hf download OpenGVLab/InternVL3-8B-hf"):
        server.run_graph(graph)


def test_a_prompt_saved_in_one_graph_samples_in_another(server, cat):
    graph = toy_graph(cat)
    graph["save"] = {
        "class_type": "SqueezeSaveConditioning",
        "inputs": {"conditioning": ["gate", 0], "filename_prefix": "kept/cat"},
    }
    first = server.run_graph(graph)
    choices = server.object_info()["SqueezeLoadConditioning"]["input"]["required"]["file"]
    options = choices[1].get("options", choices[0])
    kept = [name for name in options if name.startswith("kept/cat")]
    assert kept, options
    graph = toy_graph(cat, sample__positive=["load", 0])
    for name in ("save", "gate", "show gate", "gate picture"):
        graph.pop(name, None)
    graph["load"] = {"class_type": "SqueezeLoadConditioning", "inputs": {"file": kept[-1]}}
    second = server.run_graph(graph)
    one, other = (picture(server, outputs["result"]["images"][0]) for outputs in (first, second))
    assert one.tobytes() == other.tobytes()


def test_the_mllm_is_gone_after_free(server, cat):
    server.run_graph(toy_graph(cat, encode__prompt="something new"))
    assert server.loaded_models()
    assert server.free() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": {"picture_1": ["toy", 4]}},
        {"picture_1": ["toy", 4]},
        {"images": ["toy", 4]},
        {"images.image_1": ["toy", 4]},
    ],
    ids=["nested", "flat", "all at once", "another name"],
)
def test_pictures_under_a_name_that_is_none_are_refused_by_name(server, wrong):
    """Through the API; the page cannot send them. The MLLM would see no picture, and say nothing."""
    graph = {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {"subject": 0}},
        "states": {
            "class_type": "SqueezeEncode",
            "inputs": {"mllm": ["toy", 2], "prompt": "a toy", "tiles": 1, **wrong},
        },
        "pooled": {
            "class_type": "SqueezeAggregate",
            "inputs": {"states": ["states", 0], "dla": ["toy", 3], "text_layers": "all", "image_layers": "all"},
        },
        "saved": {
            "class_type": "SqueezeSaveConditioning",
            "inputs": {"conditioning": ["pooled", 0], "filename_prefix": "wrong"},
        },
    }
    with pytest.raises(GraphError, match=r"images\.picture_1"):
        server.run_graph(graph)
