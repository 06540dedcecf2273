"""Loaders: what is chosen by another node, what is there and cannot be read, what changed on disk."""

import json

import pytest
from comfy_server import GraphError
from comfy_workflow import aggregate

ORIGINAL, QUANTISED = "InternVL3-8B", "Qwen2.5-VL-7B-Instruct-AWQ"


@pytest.fixture
def models(comfy, pack, tmp_path, monkeypatch):
    """models/LLM, and nothing in the other folders of models."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path / name)])
    (tmp_path / "LLM").mkdir()
    return tmp_path / "LLM"


def unreadable(folder, **config) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")


def test_an_mllm_that_is_there_and_cannot_be_read_is_not_called_absent(pack, models):
    unreadable(models / ORIGINAL, model_type="internvl_chat")
    unreadable(models / QUANTISED, model_type="qwen2_5_vl", quantization_config={"quant_method": "awq"})
    node = pack("nodes.mllm").LoadMLLM
    assert not pack("nodes.folders").mllm_choices()
    assert "original layout" in node.validate_inputs(f"LLM/{ORIGINAL}")
    assert "quantised by 'awq'" in node.validate_inputs(f"LLM/{QUANTISED}")
    nothing = node.validate_inputs("(no MLLM found)")
    assert "original layout" in nothing and "quantised by 'awq'" in nothing and "hf download" in nothing


def test_other_folders_are_not_complained_of_when_one_can_be_read(pack, models):
    unreadable(models / ORIGINAL, model_type="internvl_chat")
    unreadable(models / "good", model_type="internvl")
    refusal = pack("nodes.mllm").LoadMLLM.validate_inputs("LLM/absent")
    assert "Found: LLM/good." in refusal and "original layout" not in refusal


def test_an_mllm_that_changed_on_disk_is_loaded_again(pack, models):
    unreadable(models / "good", model_type="internvl")
    node = pack("nodes.mllm").LoadMLLM
    before = node.fingerprint_inputs("LLM/good", weight_dtype="default", device="default")
    assert before == node.fingerprint_inputs("LLM/good", weight_dtype="default", device="default")
    (models / "good" / "model.safetensors").write_bytes(b"other weights")
    assert node.fingerprint_inputs("LLM/good", weight_dtype="default", device="default") != before


def test_a_wrong_layer_range_is_quoted(pack):
    """ComfyUI says it at both fields, so the sentence quotes the text that is wrong."""
    node = pack("nodes.dla").Aggregate
    assert '"5-2"' in node.validate_inputs("5-2", "all")
    assert '"5-2"' in node.validate_inputs("all", "5-2")


# Chosen by another node: ComfyUI then checks with None, before anything runs.


def switched(graph: dict, node: str, field: str, value: str) -> dict:
    """The graph with a widget fed by a switch."""
    graph[node]["inputs"][field] = ["switch", 0]
    graph["text"] = {"class_type": "PrimitiveString", "inputs": {"value": value}}
    choices = {"switch": True, "on_true": ["text", 0], "on_false": ["text", 0]}
    graph["switch"] = {"class_type": "ComfySwitchNode", "inputs": choices}
    graph["show"] = {"class_type": "PreviewAny", "inputs": {"source": [node, 0]}}
    return graph


@pytest.fixture(scope="module")
def toy(server, tmp_path_factory):
    """The toy world's files in the server's model folders; gone afterwards."""
    import shutil

    from squeeze_core.toyworld import build

    world = build(tmp_path_factory.mktemp("world"))
    models = server.base / "models"
    mllm, adapter, flux = (
        models / "LLM/toy",
        models / "squeeze/toy.safetensors",
        models / "diffusion_models/toy.sft",
    )
    for place in (mllm, adapter, flux):
        place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(world.mllm, mllm)
    shutil.copy(world.adapter, adapter)
    shutil.copy(world.flux_file, flux)
    yield
    shutil.rmtree(mllm)
    adapter.unlink()
    flux.unlink()


def with_adapter() -> dict:
    return {
        "flux": {"class_type": "UNETLoader", "inputs": {"unet_name": "toy.sft", "weight_dtype": "default"}},
        "load": {
            "class_type": "SqueezeLoadAdapter",
            "inputs": {"model": ["flux", 0], "adapter": "toy.safetensors", "strength": 1.0},
        },
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["load", 1]}},
    }


def test_every_loader_can_be_fed_by_another_node(server, toy):
    mllm = {"class_type": "SqueezeLoadMLLM", "inputs": {"weight_dtype": "default", "device": "default"}}
    server.run_graph(switched({"load": mllm}, "load", "model", "LLM/toy"))
    server.run_graph(switched(with_adapter(), "load", "adapter", "toy.safetensors"))
    kept = {"class_type": "SqueezeLoadConditioning", "inputs": {}}
    with pytest.raises(GraphError, match=r"(?s)graph failed.*no saved conditioning"):  # as it runs, not before
        server.run_graph(switched({"load": kept}, "load", "file", "absent.cond.safetensors"))
    score = {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
        "score": {
            "class_type": "SqueezeScore",
            "inputs": {"generated": ["toy", 4], "clip": "(none)", "orientation": "(none)", "rank_by": "identity"},
        },
    }
    with pytest.raises(GraphError, match=r"(?s)graph failed.*Nothing can be measured"):
        server.run_graph(switched(score, "score", "dino", "(none)"))


@pytest.mark.parametrize(
    ("kind", "said"), [("adapter", ("tau_1 0.83, tau_2 0.59", "pooled: zeros")), ("saved", ("Saved shown_",))]
)
def test_what_a_node_says_is_shown_on_it(server, toy, kind, said):
    from websocket import create_connection

    page = create_connection(f"ws://127.0.0.1:{server.port}/ws?clientId={server.client_id}", timeout=120)
    try:
        if kind == "adapter":
            graph = with_adapter()
            graph["load"]["inputs"]["strength"] = 0.5  # so that it runs
        else:
            inputs = {"conditioning": ["aggregate", 0], "filename_prefix": "shown"}
            graph = {
                "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
                "encode": {"class_type": "SqueezeEncode", "inputs": {"mllm": ["toy", 2], "prompt": "a toy"}},
                "aggregate": aggregate(),
                "load": {"class_type": "SqueezeSaveConditioning", "inputs": inputs},
            }
        outputs = server.run_graph(graph)
        (text,) = outputs["load"]["text"]
        assert all(part in text for part in said)
        while not (isinstance(message := page.recv(), bytes) and text.encode() in message):
            pass
        assert int.from_bytes(message[:4], "big") == 3 and b"load" in message  # text for a node
    finally:
        page.close()


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("SqueezeEncode", {"mllm": ["toy", 2], "prompt": "a toy"}),
        ("SqueezeWritePrompt", {"mllm": ["toy", 2], "instruction": "a toy", "style": "short", "seed": 0}),
        (
            "SqueezeScore",
            {"generated": ["toy", 4], "clip": "(none)", "orientation": "(none)", "rank_by": "identity"},
        ),
    ],
)
def test_one_picture_too_many_gives_one_sentence(server, kind, inputs):
    graph = {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
        "node": {"class_type": kind, "inputs": {**inputs, "images.picture_13": ["toy", 4]}},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}},
    }
    if kind == "SqueezeScore":
        switched(graph, "node", "dino", "(none)")
    with pytest.raises(GraphError, match=r"no input images.picture_13.*images.picture_12"):
        server.run_graph(graph)


def test_a_seed_stays_as_it_is_unless_told_otherwise(server):
    """At temperature 0 each new one would run the MLLM for the same text."""
    inputs = server.object_info()["SqueezeWritePrompt"]["input"]["required"]
    assert inputs["seed"][1]["control_after_generate"] == "fixed"
