"""Plan Scene and Edit Plan on the real server: by the rule, by an MLLM, and by boxes of core's canvas."""

import io as streams
import json

import numpy as np
import pytest
import torch
from comfy_server import GraphError
from PIL import Image

PROMPT = "a photo of the toy of picture 1 left of the toy of picture 2, on a beach"
HAND = {
    "subjects": [{"number": 1, "name": "cat", "picture": 1}, {"number": 2, "name": "dog", "caption": "a dog"}],
    "grid": ["1 1 1 1 2 2 2 2"] * 8,
}
CANVAS = {"width": 128, "height": 64}
STACKED = [
    {"x": 0, "y": 0, "width": 128, "height": 32, "metadata": {}},
    {"x": 0, "y": 32, "width": 128, "height": 32, "metadata": {}},
]


@pytest.fixture(scope="module")
def pictures(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "blue"):
        Image.new("RGB", (48, 48), colour).save(folder / f"plan_{colour}.png")
    return [server.upload_image(folder / f"plan_{colour}.png") for colour in ("red", "blue")]


def plan_graph(pictures, **changes) -> dict:
    graph = {f"load {n}": {"class_type": "LoadImage", "inputs": {"image": name}} for n, name in enumerate(pictures)}
    inputs = {"instruction": PROMPT, "planner": "auto", "candidates": 2, "seed": 1, "mllm": ["toy", 2]}
    inputs |= {f"images.picture_{n + 1}": [f"load {n}", 0] for n in range(len(pictures))}
    return graph | {
        "toy": {"class_type": "SqueezeToyWorld", "inputs": {}},
        "plan": {"class_type": "SqueezePlanScene", "inputs": inputs | changes},
        "text": {"class_type": "PreviewAny", "inputs": {"source": ["plan", 1]}},
        "image": {"class_type": "PreviewImage", "inputs": {"images": ["plan", 2]}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["plan", 3]}},
    }


def edit_graph(text="", **changes) -> dict:
    inputs = {"text": text, "pick": 1, **CANVAS, **changes}
    return {
        "edit": {"class_type": "SqueezeEditPlan", "inputs": inputs},
        "boxes": {"class_type": "PreviewAny", "inputs": {"source": ["edit", 1]}},
        "parts": {"class_type": "MaskToImage", "inputs": {"mask": ["edit", 2]}},
        "masks": {"class_type": "PreviewImage", "inputs": {"images": ["parts", 0]}},
        "image": {"class_type": "PreviewImage", "inputs": {"images": ["edit", 3]}},
        "text": {"class_type": "PreviewAny", "inputs": {"source": ["edit", 4]}},
    }


def drawn_boxes(boxes) -> dict:
    inputs = {**CANVAS, "editor_state": {"__value__": boxes}}  # lists as such, not links
    return {"canvas": {"class_type": "CreateBoundingBoxes", "inputs": inputs}}


def test_the_toy_world_plans_by_the_rule(server, pictures):
    outputs = server.run_graph(plan_graph(pictures))
    (plan,) = json.loads(outputs["text"]["text"][0])["plans"]
    assert plan["subjects"][1]["caption"] == "a photo of the small toy, on the right, on a beach"
    assert plan["grid"] == [[1, 1, 1, 1, 2, 2, 2, 2]] * 8
    assert len(outputs["image"]["images"]) == 1


def test_an_mllm_plans_candidates_whose_first_can_be_edited(server, pictures):
    graph = plan_graph(pictures, planner="mllm", count=2)
    edited = edit_graph("", plan=["plan", 0])
    edited = {f"e {name}": node for name, node in edited.items()}
    for node in edited.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in ("edit", "parts"):
                node["inputs"][name] = [f"e {value[0]}", value[1]]
    outputs = server.run_graph(graph | edited)
    plans = json.loads(outputs["text"]["text"][0])["plans"]
    assert 1 <= len(plans) <= 2 and len(outputs["image"]["images"]) == len(plans)
    assert json.loads(outputs["e text"]["text"][0]) == plans[0]
    assert outputs["report"]["text"][0].startswith("plan 1 (candidate")


def test_a_plan_by_hand_gives_boxes_masks_and_a_picture(server):
    outputs = server.run_graph(edit_graph(json.dumps(HAND)))
    ((left, right),) = json.loads(outputs["boxes"]["text"][0])
    assert (left["x"], left["width"], right["x"], right["height"]) == (0, 64, 64, 64)
    assert right["metadata"]["desc"] == "dog"
    masks = [np.asarray(Image.open(streams.BytesIO(server.image(entry)))) for entry in outputs["masks"]["images"]]
    assert len(masks) == 2 and masks[0].shape[:2] == (64, 128)
    assert masks[0][:, :64].min() == 255 and masks[0][:, 64:].max() == 0
    assert json.loads(outputs["text"]["text"][0])["grid"] == [[1, 1, 1, 1, 2, 2, 2, 2]] * 8


def test_boxes_drawn_on_cores_canvas_move_the_subjects_and_go_back_to_it(server):
    graph = edit_graph(json.dumps(HAND), boxes=["canvas", 1]) | drawn_boxes(STACKED)
    graph["again"] = {
        "class_type": "CreateBoundingBoxes",
        "inputs": {**CANVAS, "bboxes": ["edit", 1], "editor_state": {"__value__": []}},
    }
    graph["same"] = {"class_type": "PreviewAny", "inputs": {"source": ["again", 1]}}
    outputs = server.run_graph(graph)
    assert json.loads(outputs["text"]["text"][0])["grid"] == [[1] * 8] * 4 + [[2] * 8] * 4
    (frame,) = json.loads(outputs["same"]["text"][0])
    sides = ("x", "y", "width", "height")
    assert [[box[side] for side in sides] for box in frame] == [[box[side] for side in sides] for box in STACKED]


@pytest.mark.parametrize(
    ("text", "boxes", "words"),
    [
        ("", None, "There is no plan"),
        ('{"subjects": [', None, "cut off"),
        (json.dumps(HAND | {"grid": ["1 1 1 1 1 1 1 1"] * 8}), None, "Subject 2 has no cell"),
        (json.dumps(HAND), STACKED[:1], "1 boxes for 2 subjects"),
        (json.dumps(HAND), [STACKED[0], STACKED[0]], "wholly covered"),
        (json.dumps(HAND), [STACKED[0], STACKED[1] | {"height": 50}], "leaves the picture of 128 x 64"),
    ],
)
def test_a_wrong_plan_or_box_gives_one_sentence(server, text, boxes, words):
    graph = edit_graph(text)
    if boxes is not None:
        graph |= drawn_boxes(boxes)
        graph["edit"]["inputs"]["boxes"] = ["canvas", 1]
    with pytest.raises(GraphError, match=words):
        server.run_graph(graph)


def test_a_plan_that_is_not_there_and_masks_beside_boxes_give_one_sentence(pack):
    node, error = pack("nodes.planning").EditPlan, pack("squeeze_core.errors").SqueezeError
    import torch

    text = json.dumps(HAND)
    with pytest.raises(error, match="Plan 3 is asked for"):
        node.execute(text, 3, 128, 64)
    with pytest.raises(error, match="Give one of them"):
        node.execute(text, 1, 128, 64, boxes=STACKED, masks=torch.ones(2, 8, 8))
    with pytest.raises(error, match="1 masks for 2 subjects"):
        node.execute(text, 1, 128, 64, masks=torch.ones(8, 8))
    masks = torch.zeros(2, 64, 128)
    masks[0, :32], masks[1, 32:] = 1, 1
    (plan,) = node.execute(text, 1, 128, 64, masks=masks).result[0]
    assert plan.grid == ((1,) * 8,) * 4 + ((2,) * 8,) * 4


def test_the_interrupt_button_stops_planning(pack, clean_memory, folders, comfy):
    hosting, planner = pack("nodes.hosting"), pack("squeeze_core.planning.planner")
    hosted = hosting.load_mllm(folders["qwen2.5-vl"])
    clean_memory.interrupt_current_processing(True)
    with pytest.raises(clean_memory.InterruptProcessingException):
        planner.plan_scene("a beach", [Image.new("RGB", (32, 32))], hosted, "mllm", candidates=2)


def test_a_trained_planner_is_heard_while_it_plans_and_never_by_encode(pack, monkeypatch, tmp_path):
    hosting, planning = pack("nodes.hosting"), pack("nodes.planning")
    adapter, backbone = pack("squeeze_core.planning.adapter"), pack("squeeze_core.mllm.backbone")
    mllm = hosting.load_mllm(pack("squeeze_core.toyworld.world").build().mllm)
    layer = mllm.model.model.language_model.layers[0].self_attn.q_proj
    lora = {
        "layers.0.self_attn.q_proj.lora_A": torch.randn(4, layer.in_features) / 8,
        "layers.0.self_attn.q_proj.lora_B": torch.randn(layer.out_features, 4) / 8,
    }
    path = tmp_path / "planner.safetensors"
    adapter.save(path, adapter.PlannerConfig(mllm=mllm.identity, rank=4), lora)
    monkeypatch.setattr(pack("nodes.folders"), "adapter_path", lambda name: path)
    heard, add = [], adapter._add
    monkeypatch.setattr(adapter, "_add", lambda *given: heard.append(1) or add(*given))
    states = mllm.encode(backbone.Prompt("a toy")).states
    images = {f"picture_{n}": torch.rand(1, 48, 48, 3) for n in (1, 2)}
    asked = {"planner": "auto", "candidates": 1, "seed": 0, "images": images, "mllm": mllm, "temperature": 0.0}
    plain = planning.PlanScene.execute(PROMPT, **asked)
    assert not heard and len(plain.args[0]) == 1  # the rule
    trained = planning.PlanScene.execute(PROMPT, **asked, count=2, trained="planner.safetensors")
    assert heard and trained.args[3].startswith("plan 1 (candidate")
    count = len(heard)
    assert torch.equal(mllm.encode(backbone.Prompt("a toy")).states, states) and len(heard) == count
    assert (
        planning.PlanScene.fingerprint_inputs(trained="planner.safetensors")
        != planning.PlanScene.fingerprint_inputs()
    )
