"""Writes workflows/squeeze_with_public_weights.json. Run it after a change, then the tests of workflows.

The form: three groups, one subgraph with all machinery, outside only what a person changes; ids unique throughout;
promoted widgets have the same values inside and outside.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

NAME = "squeeze_with_public_weights"
PROMPT = "The cartoon character of the picture sits on a park bench in autumn and reads a book"
MLLM, ADAPTER = "LLM/Qwen2.5-VL-7B-Instruct", "x2i_qwen2.5-vl-7b.safetensors"
TITLE = "Subject into a new scene"
HF = "https://huggingface.co"
FILES = {
    "flux1-dev.safetensors": ("Comfy-Org/flux1-dev/resolve/main", "diffusion_models"),
    "dit_lora.safetensors": ("bytedance-research/UNO/resolve/main", "loras"),
    "ae.safetensors": ("Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae", "vae"),
}
FIRST_NOTE = """**Press Run.** The MLLM reads prompt and picture together, in place of T5 and CLIP.

1. Another *picture*: name its subject in the prompt.
2. *tau_1* up: closer to the picture. 1.1 shows it from the first step. *tau_2* has no say, as *late* is keep.
3. *write first*: the MLLM puts the picture into words, and these are heard.
"""
MODELS_NOTE = f"""**Files.** FLUX.1-dev is **non-commercial**; UNO's card says CC BY-NC 4.0.

| file | folder |
|---|---|
| flux1-dev.safetensors | models/diffusion_models |
| dit_lora.safetensors | models/loras |
| ae.safetensors | models/vae |
| Qwen2.5-VL-7B-Instruct | models/LLM |
| {ADAPTER} | models/squeeze |

The last: `hf download OPPOer/X2I qwen2.5-vl-7b_proj.pt`, then `squeeze convert x2i`.

**Trained for what.** X2I's aligner: texts alone, no subjects; that pictures work is a gift. UNO: references \
beside T5. The two were never trained together, and we have not run them at full size.
"""


def identity(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"squeeze-mllm/{NAME}/{name}"))


class Graph:
    """Nodes and links under way. Links count up through root and subgraph alike."""

    count = 0

    def __init__(self) -> None:
        self.nodes: dict[int, dict] = {}
        self.links: list[tuple[int, int, int, int, int, str]] = []

    def add(self, number: int, kind: str, at, size, inputs=(), outputs=(), values=(), **more) -> None:
        """inputs: (name, type), a third item "widget" for a promoted one or "optional"."""
        sockets = []
        for name, socket_type, *how in inputs:
            socket = {"name": name, "type": socket_type, "link": None}
            if "widget" in how:
                socket["widget"] = {"name": name}
            if "optional" in how:
                socket["shape"] = 7
            if "." in name:
                socket["label"] = name.partition(".")[2]
            sockets.append(socket)
        properties = {"Node name for S&R": kind, **more.pop("properties", {})}
        if kind in ("MarkdownNote",) or "-" in kind:
            properties.pop("Node name for S&R")
        self.nodes[number] = {
            "id": number,
            "type": kind,
            "pos": list(at),
            "size": list(size),
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": sockets,
            "outputs": [{"name": name, "type": socket_type, "links": []} for name, socket_type in outputs],
            "properties": properties,
            "widgets_values": list(values),
            **more,
        }

    def join(self, origin: int, slot: int, target: int, name: str, kind: str = "") -> int:
        """From an output to the input of that name; -10 as the origin is the subgraph's own input `slot`."""
        Graph.count += 1
        sockets = self.nodes[target]["inputs"]
        number = next(n for n, socket in enumerate(sockets) if socket["name"] == name)
        sockets[number]["link"] = Graph.count
        if origin != -10:
            output = self.nodes[origin]["outputs"][slot]
            output["links"].append(Graph.count)
            kind = output["type"]
        self.links.append((Graph.count, origin, slot, target, number, kind))
        return Graph.count


def models(*names: str) -> dict:
    listed = [{"name": name, "url": f"{HF}/{FILES[name][0]}/{name}", "directory": FILES[name][1]} for name in names]
    return {"models": listed}


def inner() -> tuple[Graph, list[dict], list[dict]]:
    """The machinery, its inputs and its outputs."""
    g = Graph()
    model, vae, mllm, dla = ("MODEL", "MODEL"), ("VAE", "VAE"), ("mllm", "SQUEEZE_MLLM"), ("dla", "SQUEEZE_DLA")
    states, image = ("states", "SQUEEZE_STATES"), ("image", "IMAGE")
    green, purple = {"color": "#232", "bgcolor": "#353"}, {"color": "#323", "bgcolor": "#535"}
    pictured = [
        ("mllm", "SQUEEZE_MLLM"),
        ("images.picture_1", "IMAGE", "optional"),
        ("images.picture_2", "IMAGE", "optional"),
    ]
    for_adapter = ("for_adapter", "SQUEEZE_DLA", "optional")
    # Models.
    g.add(
        11,
        "UNETLoader",
        (0, 0),
        (340, 90),
        [("unet_name", "COMBO", "widget")],
        [model],
        ["flux1-dev.safetensors", "default"],
        properties=models("flux1-dev.safetensors"),
    )
    g.add(
        12,
        "LoraLoaderModelOnly",
        (0, 150),
        (340, 90),
        [("model", "MODEL"), ("lora_name", "COMBO", "widget")],
        [model],
        ["dit_lora.safetensors", 1.0],
        properties=models("dit_lora.safetensors"),
    )
    g.add(
        13,
        "SqueezeLoadAdapter",
        (0, 300),
        (340, 180),
        [("model", "MODEL"), ("adapter", "COMBO", "widget")],
        [("model", "MODEL"), dla],
        [ADAPTER, 1.0],
    )
    g.add(
        14,
        "SqueezeLoadMLLM",
        (0, 540),
        (340, 140),
        [("model", "COMBO", "widget")],
        [mllm],
        [MLLM, "default", "default"],
    )
    g.add(
        15,
        "VAELoader",
        (0, 740),
        (340, 60),
        [("vae_name", "COMBO", "widget")],
        [vae],
        ["ae.safetensors"],
        properties=models("ae.safetensors"),
    )
    # The MLLM: hears prompt and picture, or writes both into words and hears these.
    prompt = ("prompt", "STRING", "widget")
    g.add(
        16,
        "SqueezeEncode",
        (420, 0),
        (400, 300),
        [*pictured, for_adapter, prompt],
        [states],
        [PROMPT, "", 1],
        **green,
    )
    g.add(
        17,
        "SqueezeWritePrompt",
        (420, 360),
        (400, 300),
        [*pictured, ("instruction", "STRING", "widget")],
        [("prompt", "STRING")],
        [PROMPT, "faithful", 0, "fixed", 0.0, 200],
        **green,
    )
    g.add(
        18,
        "SqueezeEncode",
        (420, 720),
        (400, 300),
        [*pictured, for_adapter, prompt],
        [states],
        ["", "", 1],
        **green,
    )
    g.add(
        19,
        "ComfySwitchNode",
        (900, 0),
        (320, 90),
        [("on_false", "SQUEEZE_STATES"), ("on_true", "SQUEEZE_STATES"), ("switch", "BOOLEAN", "widget")],
        [("output", "SQUEEZE_STATES")],
        [False],
        title="Write first?",
    )
    g.add(
        20,
        "SqueezeAggregate",
        (900, 150),
        (320, 172),
        [("states", "SQUEEZE_STATES"), ("dla", "SQUEEZE_DLA"), ("clip_l", "CONDITIONING", "optional")],
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("weights", "SQUEEZE_WEIGHTS")],
        ["all", "all"],
    )
    g.add(21, "SqueezeShowLayers", (900, 382), (320, 60), [("weights", "SQUEEZE_WEIGHTS")], [image])
    # The picture's own tokens, and who is heard when.
    g.add(
        22,
        "SqueezeReferenceTokens",
        (900, 502),
        (320, 240),
        [
            ("vae", "VAE"),
            ("image", "IMAGE"),
            ("mask", "MASK", "optional"),
            ("references", "SQUEEZE_REFERENCES", "optional"),
        ],
        [("references", "SQUEEZE_REFERENCES"), image],
        REFERENCE_VALUES,
    )
    g.add(
        23,
        "SqueezeTimestepGate",
        (1300, 0),
        (320, 232),
        [
            ("conditioning", "CONDITIONING"),
            ("references", "SQUEEZE_REFERENCES", "optional"),
            ("model", "MODEL", "optional"),
            ("tau_1", "FLOAT", "widget"),
        ],
        [("conditioning", "CONDITIONING")],
        [0.95, 0.85, "keep", 3.5],
        **purple,
    )
    g.add(24, "ModelSamplingFlux", (1300, 292), (320, 140), [("model", "MODEL")], [model], [1.15, 0.5, 704, 704])
    g.add(
        25,
        "SqueezeSigmas",
        (1300, 492),
        (320, 110),
        [("model", "MODEL"), ("steps", "INT", "widget")],
        [("sigmas", "SIGMAS")],
        [25, "flux", 1.0],
    )
    g.add(
        26,
        "RandomNoise",
        (1300, 662),
        (320, 84),
        [("noise_seed", "INT", "widget")],
        [("NOISE", "NOISE")],
        [42, "fixed"],
    )
    g.add(27, "KSamplerSelect", (1300, 806), (320, 60), [], [("SAMPLER", "SAMPLER")], ["euler"])
    g.add(28, "EmptySD3LatentImage", (1300, 926), (320, 110), [], [("LATENT", "LATENT")], [704, 704, 1])
    # Sampling.
    g.add(
        29,
        "BasicGuider",
        (1700, 0),
        (320, 56),
        [("model", "MODEL"), ("conditioning", "CONDITIONING")],
        [("GUIDER", "GUIDER")],
    )
    sampler = ("noise", "NOISE"), ("guider", "GUIDER"), ("sampler", "SAMPLER"), ("sigmas", "SIGMAS")
    g.add(
        30,
        "SamplerCustomAdvanced",
        (1700, 116),
        (320, 112),
        [*sampler, ("latent_image", "LATENT")],
        [("output", "LATENT"), ("denoised_output", "LATENT")],
    )
    g.add(31, "VAEDecode", (1700, 288), (320, 56), [("samples", "LATENT"), ("vae", "VAE")], [("IMAGE", "IMAGE")])
    g.add(
        32,
        "SqueezeShowGate",
        (1700, 404),
        (320, 60),
        [("conditioning", "CONDITIONING"), ("sigmas", "SIGMAS")],
        [image],
    )
    # Model files last, so that what a person changes comes first.
    outside = [
        ("picture", "IMAGE", [(16, "images.picture_1"), (17, "images.picture_1"), (22, "image")]),
        ("prompt", "STRING", [(16, "prompt"), (17, "instruction")]),
        ("write_first", "BOOLEAN", [(19, "switch")]),
        ("tau_1", "FLOAT", [(23, "tau_1")]),
        ("steps", "INT", [(25, "steps")]),
        ("seed", "INT", [(26, "noise_seed")]),
        ("diffusion_model", "COMBO", [(11, "unet_name")]),
        ("lora", "COMBO", [(12, "lora_name")]),
        ("adapter", "COMBO", [(13, "adapter")]),
        ("mllm", "COMBO", [(14, "model")]),
        ("vae", "COMBO", [(15, "vae_name")]),
    ]
    inputs = []
    for slot, (name, kind, targets) in enumerate(outside):
        links = [g.join(-10, slot, target, socket, kind) for target, socket in targets]
        inputs.append(
            {"id": identity(name), "name": name, "type": kind, "linkIds": links, "pos": [-140, 20 * slot]}
        )
    for origin, slot, target, name in (
        (11, 0, 12, "model"),
        (12, 0, 13, "model"),
        (13, 0, 24, "model"),
        (24, 0, 25, "model"),
        (24, 0, 29, "model"),
        (14, 0, 16, "mllm"),
        (14, 0, 17, "mllm"),
        (14, 0, 18, "mllm"),
        (13, 1, 16, "for_adapter"),
        (13, 1, 18, "for_adapter"),
        (17, 0, 18, "prompt"),
        (16, 0, 19, "on_false"),
        (18, 0, 19, "on_true"),
        (19, 0, 20, "states"),
        (13, 1, 20, "dla"),
        (20, 2, 21, "weights"),
        (15, 0, 22, "vae"),
        (20, 0, 23, "conditioning"),
        (22, 0, 23, "references"),
        (23, 0, 29, "conditioning"),
        (26, 0, 30, "noise"),
        (29, 0, 30, "guider"),
        (27, 0, 30, "sampler"),
        (25, 0, 30, "sigmas"),
        (28, 0, 30, "latent_image"),
        (30, 0, 31, "samples"),
        (15, 0, 31, "vae"),
        (23, 0, 32, "conditioning"),
        (25, 0, 32, "sigmas"),
    ):
        g.join(origin, slot, target, name)
    outputs = []
    for slot, (name, origin) in enumerate((("image", 31), ("gate", 32), ("layers", 21))):
        Graph.count += 1
        g.nodes[origin]["outputs"][0]["links"].append(Graph.count)
        g.links.append((Graph.count, origin, 0, -20, slot, "IMAGE"))
        outputs.append(
            {
                "id": identity(f"out {name}"),
                "name": name,
                "type": "IMAGE",
                "linkIds": [Graph.count],
                "pos": [2120, 20 * slot],
            }
        )
    return g, inputs, outputs


# long_side, placement, fit, strength, start, end.
REFERENCE_VALUES = [0, "uxo", "resize", 1.0, 1.1, 0.0]


def workflow() -> dict:
    """The whole file."""
    Graph.count = 20
    machinery, inputs, outputs = inner()
    subgraph = identity("subgraph")
    links = Graph.count
    Graph.count = 0
    root = Graph()
    dark = {"color": "#222", "bgcolor": "#000"}
    root.add(1, "MarkdownNote", (0, 0), (310, 210), values=[FIRST_NOTE], title="Read me", **dark)
    root.add(
        2,
        "LoadImage",
        (0, 325),
        (310, 440),
        outputs=[("IMAGE", "IMAGE"), ("MASK", "MASK")],
        values=["example.png", "image"],
        title="The subject",
    )
    values = [PROMPT, False, 0.95, 25, 42]
    values += ["flux1-dev.safetensors", "dit_lora.safetensors", ADAPTER, MLLM, "ae.safetensors"]
    root.add(
        3,
        subgraph,
        (370, 40),
        (420, 410),
        [("picture", "IMAGE"), *((one["name"], one["type"], "widget") for one in inputs[1:])],
        [(one["name"], "IMAGE") for one in outputs],
        values,
        title=TITLE,
        color="#323",
        bgcolor="#535",
    )
    root.add(4, "PreviewImage", (370, 515), (420, 250), [("images", "IMAGE")], title="Which step hears what")
    root.add(
        5, "SaveImage", (850, 40), (450, 425), [("images", "IMAGE")], values=["squeeze_public"], title="Result"
    )
    root.add(
        6, "MarkdownNote", (850, 525), (450, 275), values=[MODELS_NOTE], title="Files and what they know", **dark
    )
    root.join(2, 0, 3, "picture")
    root.join(3, 0, 5, "images")
    root.join(3, 1, 4, "images")
    groups = [
        ("1  Subject", [-12, 250, 334, 530], "#5b94b8"),
        ("2  Say where, set the gate", [358, -35, 444, 815], "#9a7cc4"),
        ("3  Result", [838, -35, 474, 515], "#5b94b8"),
    ]
    return {
        "id": identity("workflow"),
        "revision": 0,
        "last_node_id": max(machinery.nodes),
        "last_link_id": links,
        "nodes": list(root.nodes.values()),
        "links": [list(link) for link in root.links],
        "groups": [
            {"id": number, "title": title, "bounding": box, "color": colour, "font_size": 22, "flags": {}}
            for number, (title, box, colour) in enumerate(groups, start=1)
        ],
        "definitions": {
            "subgraphs": [
                {
                    "id": subgraph,
                    "version": 1,
                    "state": {
                        "lastGroupId": 0,
                        "lastNodeId": max(machinery.nodes),
                        "lastLinkId": links,
                        "lastRerouteId": 0,
                    },
                    "revision": 0,
                    "config": {},
                    "name": TITLE,
                    "inputNode": {"id": -10, "bounding": [-260, 60, 140, 280]},
                    "outputNode": {"id": -20, "bounding": [2100, 200, 120, 100]},
                    "inputs": inputs,
                    "outputs": outputs,
                    "widgets": [],
                    "nodes": list(machinery.nodes.values()),
                    "groups": [],
                    "links": [
                        dict(
                            zip(
                                ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"),
                                link,
                                strict=True,
                            )
                        )
                        for link in machinery.links
                    ],
                    "extra": {"workflowRendererVersion": "LG"},
                    "category": "Squeeze",
                    "description": "An MLLM's layers as FLUX's context, reference tokens, the gate and sampling.",
                }
            ]
        },
        "config": {},
        "extra": {"ds": {"scale": 0.75, "offset": [130, 160]}, "workflowRendererVersion": "LG"},
        "version": 0.4,
    }


if __name__ == "__main__":
    path = Path(__file__).parents[1] / f"{NAME}.json"
    path.write_text(json.dumps(workflow(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
