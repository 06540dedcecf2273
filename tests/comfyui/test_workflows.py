"""The example graphs and the blueprint: well-formed, tidy, accepted by the server, and running."""

import importlib.util
import io as streams
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comfy_server import PACK_FOLDER
from comfy_workflow import workflow_to_prompt
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.commands import demo
from squeeze_core.pipeline import SqueezePipeline
from squeeze_core.toyworld.making.table import GENERATION

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / "workflows").glob("*.json"))
API_COPIES = sorted((CHECKOUT / "workflows" / "api").glob("*.json"))
NAMES = {
    *("toy_world", "squeeze_with_public_weights", "squeeze_single_subject", "squeeze_two_subjects"),
    *("gate_with_kontext", "gate_with_uno_lora", "gate_with_qwen_image_edit"),
    *("gate_with_krea2", "gate_with_flux2_klein"),
    *("many_subjects_toy", "many_subjects", "two_subjects_with_boxes"),
}
TOYS = {"toy_world", "many_subjects_toy"}
OTHER_MODELS = {"gate_with_qwen_image_edit", "gate_with_krea2", "gate_with_flux2_klein"}  # their sizes are fixed
TITLE_HEIGHT = 30  # of a node, above its position
REAL = {  # stand-ins of these can run; of all others there is only the name
    *("flux1-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"),
    *("ae.safetensors", "dit_lora.safetensors"),
}
FROM_THE_USER = ("SqueezeLoadMLLM", "SqueezeLoadAdapter")  # a folder, and a file that nobody publishes

every_workflow = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def subgraphs(workflow: dict) -> dict[str, dict]:
    return {graph["id"]: graph for graph in (workflow.get("definitions") or {}).get("subgraphs") or []}


def all_nodes(workflow: dict) -> list[dict]:
    """Those of subgraphs too, without the nodes that stand for one."""
    inside = subgraphs(workflow)
    nodes = [node for graph in (workflow, *inside.values()) for node in graph["nodes"]]
    return [node for node in nodes if node["type"] not in inside]


def box(node: dict) -> tuple[float, float, float, float]:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_HEIGHT, x + width, y + height


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def small(prompt: dict) -> dict:
    """The same graph with few steps and few pixels."""
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == "EmptySD3LatentImage":
            inputs.update(width=64, height=64)
        if node["class_type"] == "CreateBoundingBoxes":
            edges = ("x", "y", "width", "height")
            drawn = inputs["editor_state"]["__value__"]
            boxes = [{**box, **{edge: box[edge] // 16 for edge in edges}} for box in drawn]
            inputs.update(width=64, height=64, editor_state={"__value__": boxes})
        if node["class_type"] == "SqueezeReferenceTokens":
            inputs["long_side"] = 64
        if node["class_type"] == "SqueezeSigmas":
            inputs["steps"] = 3
    return prompt


def of_type(prompt: dict, kind: str) -> list[str]:
    return [name for name, node in prompt.items() if node["class_type"] == kind]


@pytest.fixture(scope="module")
def example(server, comfyui_path):
    """The picture that every ComfyUI has in its input folder; this server's folder is its own."""
    shutil.copy(comfyui_path / "input" / "example.png", server.base / "input" / "example.png")


@pytest.fixture(scope="module")
def stand_ins(server, example, pack, tmp_path_factory):
    """Small models under the names in the workflows, in the layouts of the real ones; gone afterwards.

    The MLLM, the adapter and FLUX are the toy world's, the VAE is a TAESD, UNO's LoRA has UNO's key names.
    The text encoders are only names: their sizes are fixed in ComfyUI.
    """
    import torch
    from safetensors.torch import save_file

    conditioning_file = pack("nodes.conditioning_file")
    from squeeze_core.toyworld import build

    world = build(tmp_path_factory.mktemp("world"))
    models = server.base / "models"
    made = []

    def place(source, *where):
        target = models.joinpath(*where)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.append(target)
        if isinstance(source, dict):
            save_file(source, target)
        elif source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    for name in ("flux1-dev", "flux1-dev-kontext_fp8_scaled"):
        place(world.flux_file, "diffusion_models", f"{name}.safetensors")
    nothing = {"nothing": torch.zeros(1)}
    for node in (node for path in FILES for node in all_nodes(read(path))):
        for model in node["properties"].get("models", []):
            if model["name"] not in REAL and not models.joinpath(model["directory"], model["name"]).exists():
                place(nothing, model["directory"], model["name"])
    place(random_taesd(), "vae", "ae.safetensors")
    place(world.mllm, "LLM", "InternVL3-8B-hf")
    place(world.adapter, "squeeze", "your_adapter.safetensors")
    place(uno_lora(world.flux_file), "loras", "dit_lora.safetensors")
    qwen, aligner = public_mllm_and_aligner(tmp_path_factory.mktemp("public"))
    place(qwen, "LLM", "Qwen2.5-VL-7B-Instruct")
    place(aligner, "squeeze", "x2i_qwen2.5-vl-7b.safetensors")

    # What T5 and CLIP would give.
    from safetensors import safe_open

    with safe_open(world.flux_file, "pt") as flux:
        width = flux.get_slice("txt_in.weight").get_shape()[1]
        pooled = flux.get_slice("vector_in.in_layer.weight").get_shape()[1]
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 12, width, generator=generator)
    encoded = server.base / "input" / "text.cond.safetensors"
    conditioning_file.save(encoded, [[text, {"pooled_output": torch.randn(1, pooled, generator=generator)}]])
    yield
    for target in (*made, encoded):
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def public_mllm_and_aligner(folder: Path) -> tuple[Path, Path]:
    """A tiny Qwen2.5-VL, and a random aligner for it and the toy's FLUX in X2I's layout, converted."""
    import torch

    from squeeze_core import x2i
    from squeeze_core.mllm.loading import load
    from squeeze_core.toyworld import adapter, flux

    checkpoints, files = (helper(*parts) for parts in (("mllm", "checkpoints.py"), ("x2i_files.py",)))
    qwen = checkpoints.qwen(folder / "qwen")
    sizes, toy = load(qwen, device="cpu").identity, adapter.config("0" * 16)
    pooled = flux.CONFIG["pooled_projection_dim"]
    state = files.random_state(sizes.layers + 1, sizes.hidden_size, context=toy.dla.context, pooled=pooled)
    torch.save(state, folder / "proj.pt")
    x2i.convert(folder / "proj.pt", qwen, folder / "x2i.safetensors", dit=toy.dit)
    return qwen, folder / "x2i.safetensors"


def helper(*parts: str):
    """A module of tests that lies elsewhere."""
    specification = importlib.util.spec_from_file_location(parts[-1][:-3], CHECKOUT.joinpath("tests", *parts))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def random_taesd() -> dict:
    """A VAE that the stock Load VAE reads, small enough for a test: TAESD with FLUX's 16 channels."""
    import torch
    from torch import nn

    def conv(inputs, outputs, **options):
        return nn.Conv2d(inputs, outputs, 3, padding=1, **options)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))

    def down():
        return [conv(64, 64, stride=2, bias=False), Block(), Block(), Block()]

    def up():
        return [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]

    torch.manual_seed(0)
    encoder = nn.Sequential(conv(3, 64), Block(), *down(), *down(), *down(), conv(64, 16))
    decoder = nn.Sequential(nn.Identity(), conv(16, 64), nn.ReLU(), *up(), *up(), *up(), Block(), conv(64, 3))
    state = {f"taesd_encoder.{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"taesd_decoder.{name}": value for name, value in decoder.state_dict().items()}
    return state


def uno_keys(double: int = 19, single: int = 38):
    """Key names and the FLUX weights they belong to, as UNO's own code has them."""
    for block in range(double):
        for stream, name in (("img", "1"), ("txt", "2")):
            for part in ("qkv", "proj"):
                yield (
                    f"double_blocks.{block}.processor.{part}_lora{name}",
                    f"double_blocks.{block}.{stream}_attn.{part}",
                )
    for block in range(single):
        yield f"single_blocks.{block}.processor.qkv_lora", f"single_blocks.{block}.linear1"
        yield f"single_blocks.{block}.processor.proj_lora", f"single_blocks.{block}.linear2"


def uno_lora(flux_file, rank: int = 2) -> dict:
    """A random LoRA of UNO's layout; blocks that the small FLUX lacks are there but find no place."""
    import torch
    from safetensors import safe_open

    generator = torch.Generator().manual_seed(1)
    state = {}
    with safe_open(flux_file, "pt") as flux:
        names = set(flux.keys())
        for key, module in uno_keys():
            known = (
                f"{module}.weight" if f"{module}.weight" in names else re.sub(r"\.\d+\.", ".0.", module) + ".weight"
            )
            rows, columns = flux.get_slice(known).get_shape()
            if "qkv_lora" in key and "single" in key:
                rows = 3 * flux.get_slice("single_blocks.0.linear2.weight").get_shape()[0]
            state[f"{key}.down.weight"] = torch.randn(rank, columns, generator=generator) * columns**-0.5
            state[f"{key}.up.weight"] = torch.randn(rows, rank, generator=generator)
    return state


def without_text_encoder(prompt: dict) -> dict:
    """The text of a file in place of Load CLIP and CLIP Text Encode."""
    for name in of_type(prompt, "DualCLIPLoader"):
        del prompt[name]
    for name in of_type(prompt, "CLIPTextEncode"):
        prompt[name] = {"class_type": "SqueezeLoadConditioning", "inputs": {"file": "text.cond.safetensors"}}
    return prompt


def test_the_examples_are_here_with_a_picture_each(server):
    assert {path.stem for path in FILES} == NAMES
    listed = server.get("/workflow_templates")[PACK_FOLDER]
    assert set(listed) == NAMES
    for name in NAMES:
        assert server.get(f"/api/workflow_templates/{PACK_FOLDER}/{name}.json")["version"] == 0.4
        picture = Image.open(streams.BytesIO(server.get_bytes(f"/api/workflow_templates/{PACK_FOLDER}/{name}.jpg")))
        assert picture.size == (512, 512)


@every_workflow
def test_nodes_do_not_overlap_and_lie_in_one_group(path):
    workflow = read(path)
    nodes, groups = workflow["nodes"], workflow["groups"]
    for number, node in enumerate(nodes):
        for other in nodes[number + 1 :]:
            assert not overlap(box(node), box(other)), (
                f"{node['type']} {node['id']} and {other['type']} {other['id']}"
            )
    frames = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in groups)]
    for number, frame in enumerate(frames):
        assert not any(overlap(frame, other) for other in frames[number + 1 :]), groups[number]["title"]
    for node in nodes:
        x, y, right, bottom = box(node)
        around = [f for f in frames if f[0] <= x and f[1] <= y and f[2] >= right and f[3] >= bottom]
        expected = 0 if node["type"] == "MarkdownNote" else 1
        assert len(around) == expected, f"{node['type']} {node['id']} lies in {len(around)} groups"


@every_workflow
def test_links_agree_at_both_ends(path, server):
    workflow, info = read(path), server.object_info()
    nodes, inside = {node["id"]: node for node in workflow["nodes"]}, subgraphs(workflow)
    seen = set()
    for link, origin, slot, target, socket, kind in workflow["links"]:
        assert link in nodes[origin]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][socket]["link"] == link
        host = inside.get(nodes[origin]["type"])
        made = host["outputs"][slot]["type"] if host else info[nodes[origin]["type"]]["output"][slot]
        assert made == kind
        assert nodes[target]["inputs"][socket]["type"] in (kind, "*")
        seen.add(link)
    held = {i["link"] for node in nodes.values() for i in node["inputs"] if i["link"] is not None}
    assert held == seen


@every_workflow
def test_every_model_file_has_its_download(path, server):
    """Else the page can only say that a file is missing, not where it comes from."""
    info = server.object_info()
    for node in all_nodes(read(path)):
        if node["type"] in ("MarkdownNote", "LoadImage", *FROM_THE_USER):
            continue
        files = {value for value in node.get("widgets_values") or [] if str(value).endswith(".safetensors")}
        models = node["properties"].get("models", [])
        assert {model["name"] for model in models} == files, node["type"]
        for model in models:
            assert re.fullmatch(r"https://huggingface\.co/[^?]+/resolve/main/[^?]+\.safetensors", model["url"])
            assert model["url"].endswith("/" + model["name"])
            assert model["directory"] in ("diffusion_models", "loras", "text_encoders", "vae")
        assert node["type"] in info


@every_workflow
def test_the_note_says_what_it_does_and_where_files_go(path):
    notes = [node["widgets_values"][0] for node in read(path)["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) <= 2
    text = "\n".join(notes)
    if path.stem in TOYS:
        assert "toys only" in text and "no download" in text.lower()
        return
    assert "**non-commercial**" in text
    for node in all_nodes(read(path)):
        for model in node["properties"].get("models", []):
            assert f"| {model['name']} | models/{model['directory']} |" in text
    if path.stem == "squeeze_with_public_weights":
        assert "never trained together" in text and "not run them at full size" in text and "models/squeeze" in text
    elif path.stem.startswith("squeeze") or path.stem == "many_subjects":
        assert "published no weights" in text and "models/squeeze" in text
    else:
        assert "no adapter is needed" in text
        gate = next(node for node in all_nodes(read(path)) if node["type"] == "SqueezeTimestepGate")
        assert "keep" in gate["widgets_values"]


@every_workflow
def test_the_server_accepts_every_node_and_value(path, server, stand_ins):
    prompt = workflow_to_prompt(read(path), server.object_info())
    prompt_id = server.submit(prompt)  # raises with the server's own words when it refuses
    while prompt_id not in server.get(f"/history/{prompt_id}"):
        server.interrupt()


@pytest.mark.parametrize(
    "path", sorted((CHECKOUT / "workflows" / "api").glob("*.json")), ids=lambda path: path.stem
)
def test_the_api_copy_is_what_the_page_sends(path, server):
    """For scripts. test_page compares `workflow_to_prompt` with the page itself."""
    sent = workflow_to_prompt(read(CHECKOUT / "workflows" / path.name), server.object_info())
    assert read(path) == json.loads(json.dumps(sent))


def test_the_toy_world_runs(server, example):
    prompt = workflow_to_prompt(read(CHECKOUT / "workflows" / "toy_world.json"), server.object_info())
    outputs = server.run_graph(prompt)
    (saved,) = of_type(prompt, "SaveImage")
    picture = Image.open(streams.BytesIO(server.image(outputs[saved]["images"][0])))
    assert picture.size == (128, 128)
    assert all(outputs[name]["images"] for name in of_type(prompt, "PreviewImage"))

    text, references = demo._toys(None)[0]
    assert prompt[of_type(prompt, "SqueezeEncode")[0]]["inputs"]["prompt"] == text
    settings = replace(GENERATION, true_cfg=demo._CFG, seed=0)
    (same,) = SqueezePipeline.from_toy_world(toyworld.load()).generate(text, references, settings).images
    apart = np.abs(np.asarray(picture).astype(int) - np.asarray(same).astype(int))
    assert apart.mean() < 1, "squeeze demo's first picture"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in TOYS | OTHER_MODELS], ids=lambda path: path.stem
)
def test_the_large_ones_run_on_small_models(path, server, stand_ins):
    prompt = workflow_to_prompt(read(path), server.object_info())
    outputs = server.run_graph(without_text_encoder(small(prompt)))
    (saved,) = of_type(prompt, "SaveImage")
    picture = Image.open(streams.BytesIO(server.image(outputs[saved]["images"][0])))
    assert picture.size == (64, 64)


def test_unos_lora_reaches_the_picture(server, stand_ins):
    def made(strength: float) -> bytes:
        prompt = workflow_to_prompt(read(CHECKOUT / "workflows" / "gate_with_uno_lora.json"), server.object_info())
        (lora,) = of_type(prompt, "LoraLoaderModelOnly")
        prompt[lora]["inputs"]["strength_model"] = strength
        outputs = server.run_graph(without_text_encoder(small(prompt)))
        (saved,) = of_type(prompt, "SaveImage")
        return Image.open(streams.BytesIO(server.image(outputs[saved]["images"][0]))).tobytes()

    assert made(0.0) != made(1.0)


def test_unos_lora_file_needs_no_conversion(comfy):
    """Each of its 152 modules finds its weight in a FLUX.1 of full size (on the meta device)."""
    import comfy.lora
    import comfy.lora_convert
    import comfy.supported_models
    import torch

    settings = comfy.supported_models.Flux(
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": 3072,
            "mlp_ratio": 4.0,
            "num_heads": 24,
            "depth": 19,
            "depth_single_blocks": 38,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "guidance_embed": True,
            "txt_ids_dims": [],
        }
    )
    settings.set_inference_dtype(torch.bfloat16, None)
    model = settings.get_model({}, "", device=torch.device("meta"))
    state, wanted = {}, set()
    for key, module in uno_keys():
        wanted.add(f"diffusion_model.{module}.weight")
        state[f"{key}.down.weight"], state[f"{key}.up.weight"] = torch.zeros(1, 8), torch.zeros(8, 1)
    converted = comfy.lora_convert.convert_lora(state)
    patches = comfy.lora.load_lora(converted, comfy.lora.model_lora_keys_unet(model, {}))
    found = {key if isinstance(key, str) else key[0] for key in patches}
    assert len(wanted) == 19 * 4 + 38 * 2 and found == wanted


def test_the_blueprint_is_offered(server):
    (path,) = (CHECKOUT / "subgraphs").glob("*.json")
    listed = {k: v for k, v in server.get("/global_subgraphs").items() if v["name"] == path.stem}
    (key,) = listed
    assert listed[key]["info"]["node_pack"] == f"custom_nodes.{PACK_FOLDER}"
    served = json.loads(server.get(f"/global_subgraphs/{key}")["data"])
    info = server.object_info()
    for node in served["definitions"]["subgraphs"][0]["nodes"]:
        assert node["type"] in info
