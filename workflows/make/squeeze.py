"""The paper's path: an MLLM in T5's place, by one or two pictures, by an adapter or by X2I's public aligner."""

from __future__ import annotations

from arrange import TOY, Outside, arrange, finish
from form import DARK, GREEN, Workflow
from parts import Models, Sampling, encoded, flux_mllm, references, sample

from squeeze_core.diagnosis.files import table

PROMPT = "The cartoon character of the picture sits on a park bench in autumn and reads a book"
NO_WEIGHTS = (
    "**You need a trained adapter.** The paper's authors published no weights, and neither do we: train one with "
    "`squeeze train`. *squeeze_with_public_weights* runs today."
)
TAUS = """2. *tau_1* up: closer to the picture. 1.1 shows it from the first step.
3. *tau_2* up: less of the text in late steps, more of the picture's detail.
"""


def edges(w: Workflow, models: Models, made: Sampling, taus: tuple[str, ...] = ("tau_1", "tau_2")) -> None:
    """What a person changes besides the prompt."""
    for number, name in enumerate(("tau_1", "tau_2")):
        if name in taus:
            w.promote(name, "FLOAT", made.gate["widgets_values"][number], (made.gate, name))
    w.promote("steps", "INT", made.sigmas["widgets_values"][0], (made.sigmas, "steps"))
    w.promote("seed", "INT", made.noise["widgets_values"][0], (made.noise, "noise_seed"))
    models.promote(w)
    w.give("image", made.decode)
    w.give("gate", made.show)


def public_weights() -> Workflow:
    """X2I's aligner and UNO's LoRA, with a switch: the MLLM writes first, and that text is heard."""
    w = Workflow(
        "squeeze_with_public_weights",
        "Subject into a new scene",
        "An MLLM's layers as FLUX's context, reference tokens, the gate and sampling.",
    )
    adapter = "x2i_qwen2.5-vl-7b.safetensors"
    models = flux_mllm(w, adapter, "LLM/Qwen2.5-VL-7B-Instruct", "dit_lora.safetensors")
    g = w.inner
    encode, pooled, layers = encoded(w, models, PROMPT, 1, (420, 0))
    g.column(900)
    write = g.add("SqueezeWritePrompt", (400, 300), [PROMPT, "faithful", 0, "fixed", 0.0, 200], **GREEN)
    again = g.add("SqueezeEncode", (400, 300), ["", "", 1], **GREEN)
    switch = g.add("ComfySwitchNode", (400, 90), [False], title="Write first?")
    assert models.text is not None and models.dla is not None
    g.link(models.text[0], write, "mllm")
    g.link(models.text[0], again, "mllm")
    g.link(models.dla[0], again, "for_adapter", models.dla[1])
    g.link(write, again, "prompt")
    take(w, encode, switch, pooled)
    g.link(again, switch, "on_true")
    tokens = references(w, models, 1, 0, "uxo", (1380, 0))
    made = sample(
        w,
        models,
        (pooled, 0),
        tokens[-1],
        x=1780,
        gate=(0.95, 0.85, "keep", 3.5),
        steps=25,
        curve="flux",
        side=704,
        shift="ModelSamplingFlux",
    )
    w.given("picture", "IMAGE", (encode, "images.picture_1"), (write, "images.picture_1"), (tokens[0], "image"))
    w.promote("prompt", "STRING", PROMPT, (encode, "prompt"), (write, "instruction"))
    w.promote("write_first", "BOOLEAN", False, (switch, "switch"))
    edges(w, models, made, ("tau_1",))
    w.give("layers", layers)
    files = table(
        "flux1-dev.safetensors", "dit_lora.safetensors", "ae.safetensors", "Qwen2.5-VL-7B-Instruct", adapter
    )
    arrange(
        w,
        Outside(
            """**Press Run.** The MLLM reads prompt and picture together, in place of T5 and CLIP.

1. Another *picture*: name its subject in the prompt.
2. *tau_1* up: closer to the picture. 1.1 shows it from the first step. *tau_2* has no say, as *late* is keep.
3. *write first*: the MLLM puts the picture into words, and these are heard.
""",
            f"""{files}

The last: `hf download OPPOer/X2I qwen2.5-vl-7b_proj.pt`, then `squeeze convert x2i`.

X2I's aligner was trained on texts alone, UNO beside T5: they were never trained together, and we have not run \
them at full size.""",
            note=210,
            machine=440,
            result=340,
            saved="squeeze_public",
        ),
    )
    return w


def take(w: Workflow, encode: dict, switch: dict, pooled: dict) -> None:
    """Put the switch between Encode and Aggregate."""
    g = w.inner
    number = next(i for i, link in enumerate(g.links) if link[1] == encode["id"] and link[3] == pooled["id"])
    link = g.links[number]
    at = [socket["name"] for socket in switch["inputs"]].index("on_false")
    g.links[number] = (*link[:3], switch["id"], at, link[5])
    switch["inputs"][at]["link"] = link[0]
    pooled["inputs"][0]["link"] = None
    for socket in (*switch["inputs"][:2], switch["outputs"][0]):
        socket["type"] = link[5]
    g.link(switch, pooled, "states")


def one_subject() -> Workflow:
    w = Workflow(
        "squeeze_single_subject",
        "Subject into a new scene",
        "The paper's method: an MLLM's layers pooled, VAE tokens of the picture, and the gate between the two.",
    )
    prompt = "The subject of the picture on a beach at sunset, seen from the side"
    models = flux_mllm(w, "your_adapter.safetensors", "LLM/InternVL3-8B-hf")
    encode, pooled, layers = encoded(w, models, prompt, 1, (420, 0))
    tokens = references(w, models, 1, 0, "auto", (900, 0))
    made = sample(
        w,
        models,
        (pooled, 0),
        tokens[-1],
        x=1300,
        gate=(0.95, 0.85, "drop", 2.5),
        steps=28,
        curve="cosine",
        side=704,
    )
    w.given("picture", "IMAGE", (encode, "images.picture_1"), (tokens[0], "image"))
    w.promote("prompt", "STRING", prompt, (encode, "prompt"))
    edges(w, models, made)
    w.give("layers", layers)
    arrange(
        w,
        Outside(
            "**Press Run.** The MLLM reads prompt and picture together; early steps hear it alone, late ones the "
            f"picture's VAE tokens.\n\n1. Another *picture*: name its subject in the prompt.\n{TAUS}",
            f"""{NO_WEIGHTS}

{table("flux1-dev.safetensors", "ae.safetensors", "InternVL3-8B-hf", "your_adapter.safetensors")}""",
            note=210,
            machine=390,
        ),
    )
    return w


def two_subjects() -> Workflow:
    w = Workflow(
        "squeeze_two_subjects",
        "Two subjects into one scene",
        "The MLLM reads the prompt and both pictures together; a chain of reference tokens.",
    )
    prompt = "The character of picture 1 holds the toy of picture 2, on a park bench in autumn"
    models = flux_mllm(w, "your_adapter.safetensors", "LLM/InternVL3-8B-hf")
    encode, pooled, layers = encoded(w, models, prompt, 2, (420, 0))
    tokens = references(w, models, 2, 0, "auto", (900, 0))
    made = sample(
        w,
        models,
        (pooled, 0),
        tokens[-1],
        x=1300,
        gate=(0.95, 0.85, "drop", 2.5),
        steps=28,
        curve="cosine",
        side=704,
    )
    for number, token in enumerate(tokens, start=1):
        w.given(f"picture_{number}", "IMAGE", (encode, f"images.picture_{number}"), (token, "image"))
    w.promote("prompt", "STRING", prompt, (encode, "prompt"))
    edges(w, models, made)
    w.give("layers", layers)
    arrange(
        w,
        Outside(
            "**Press Run.** Name the pictures by their order: *the hat of picture 1*.\n\n"
            "1. Two *pictures*: *Load Image* in the place of the toy.\n"
            f"{TAUS}\nSubjects that merge: see *many_subjects*.",
            f"""{NO_WEIGHTS}

{table("flux1-dev.safetensors", "ae.safetensors", "InternVL3-8B-hf", "your_adapter.safetensors")}""",
            pictures=("Picture 1", "Picture 2: a toy"),
            sockets=("picture_1", "picture_2"),
            note=180,
            machine=410,
            said=("Subjects", "Say where, set the gate", "Result"),
        ),
    )
    return w


def toy_world() -> Workflow:
    """No download; the whole method in small."""
    w = Workflow("toy_world", "A toy into a new scene", "The whole method, with models that have seen toys only.")
    prompt = "a photo of the small toy, on the left, on a brick wall"
    root, g = w.root, w.inner
    g.column(0)
    encode = g.add("SqueezeEncode", (400, 300), [prompt, "", 1], **GREEN)
    pooled = g.add("SqueezeAggregate", (400, 172), ["all", "all"])
    g.link(encode, pooled, "states")
    layers = g.add("SqueezeShowLayers", (400, 60))
    g.link(pooled, layers, "weights", "weights")
    g.column(460)
    tokens = g.add("SqueezeReferenceTokens", (320, 240), [128, "auto", "resize", 1.0, 1.1, 0.0])
    made = sample(
        w,
        Models(),
        (pooled, 0),
        tokens,
        x=840,
        gate=(0.83, 0.59, "drop", 2.5),
        steps=28,
        curve="cosine",
        side=128,
        seed=0,
        cfg=2.5,
        negative=(pooled, 1),
    )
    w.given("model", "MODEL", (made.sigmas, "model"), (made.guider, "model"))
    w.given("vae", "VAE", (tokens, "vae"), (made.decode, "vae"))
    w.given("mllm", "SQUEEZE_MLLM", (encode, "mllm"))
    w.given("dla", "SQUEEZE_DLA", (pooled, "dla"))
    w.given("picture", "IMAGE", (encode, "images.picture_1"), (tokens, "image"))
    w.promote("prompt", "STRING", prompt, (encode, "prompt"))
    edges(w, Models(), made)
    w.give("layers", layers)
    note = """**Press Run.** No download, seconds on a CPU. These tiny models have learned from **toys only**.

1. Another number in *Toy World* is another toy.
2. Change place and background in the prompt, in its own words.
3. Both taus to 0: the MLLM alone. To 1.1: the picture's tokens alone.
"""
    root.add("MarkdownNote", (310, 210), [note], at=(0, 0), title="Read me", **DARK)
    toy = root.add("SqueezeToyWorld", (310, TOY), [0], at=(0, 325))
    seen = root.add("PreviewImage", (310, 195), at=(0, 555), title="The toy")
    root.link(toy, seen, "images", "picture")
    joined = [(toy, output, socket) for output, socket in enumerate(("model", "vae", "mllm", "dla", "picture"))]
    finish(
        w,
        Outside(
            "", "", machine=380, saved="squeeze_toy", said=("Models and toy", "Say where, set the gate", "Result")
        ),
        [toy, seen],
        joined,
    )
    return w


ALL = (public_weights, one_subject, two_subjects, toy_world)
