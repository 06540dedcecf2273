"""Several subjects that stay apart: a plan or boxes say who stands where; each has its own words and references."""

from __future__ import annotations

from arrange import BOTTOM, TOY, Outside, arrange, finish
from form import DARK, GREEN, PURPLE, PURPLE_FRAME, Workflow
from gates import text
from parts import Models, flux_mllm, flux_t5, references, sample
from squeeze import NO_WEIGHTS, edges

from squeeze_core.diagnosis.files import table

PLAN_SIZE, EDIT_SIZE = (400, 400), (400, 300)


def planned(w: Workflow, prompt: str, pictures: int, side: int, at: int) -> dict[str, dict]:
    """Plan Scene, Edit Plan, Encode Plan, Apply Layout."""
    g = w.inner
    g.column(at)
    plan = g.add("SqueezePlanScene", PLAN_SIZE, [prompt, "auto", 4, 0, "fixed", 0.7, 0, "(none)"], **GREEN)
    edit = g.add("SqueezeEditPlan", EDIT_SIZE, ["", 1, side, side], **GREEN)
    g.link(plan, edit, "plan")
    encode = g.add("SqueezeEncodePlan", (400, 150), [1])
    g.link(edit, encode, "plan")
    layout = g.add("SqueezeApplyLayout", (400, 130), [0.0], **PURPLE)
    g.link(encode, layout, "subjects")
    return {"plan": plan, "edit": edit, "encode": encode, "layout": layout}


def toy() -> Workflow:
    """Two toys by the rule's plan, on a CPU."""
    w = Workflow(
        "many_subjects_toy",
        "Two toys into one scene",
        "A plan, one encode for each subject, and a layout in attention; models that have seen toys only.",
    )
    prompt = "a photo of the toy of picture 1 left of the toy of picture 2, on a beach"
    root = w.root
    made = planned(w, prompt, 2, 128, 0)
    tokens = references(w, Models(), 2, 128, "auto", (460, 0))
    w.inner.link(tokens[-1], made["encode"], "references")
    sampling = sample(
        w,
        Models(),
        (made["layout"], 0),
        None,
        x=840,
        gate=(0.83, 0.59, "drop", 2.5),
        steps=28,
        curve="cosine",
        side=128,
        seed=3,
        cfg=2.5,
        negative=(made["encode"], 2),
    )
    w.given("model", "MODEL", (sampling.sigmas, "model"), (sampling.guider, "model"))
    w.given("vae", "VAE", *((token, "vae") for token in tokens), (sampling.decode, "vae"))
    w.given("mllm", "SQUEEZE_MLLM", (made["plan"], "mllm"), (made["encode"], "mllm"))
    w.given("dla", "SQUEEZE_DLA", (made["encode"], "dla"))
    for number, token in enumerate(tokens, start=1):
        w.given(f"picture_{number}", "IMAGE", (made["plan"], f"images.picture_{number}"), (token, "image"))
    w.promote("prompt", "STRING", prompt, (made["plan"], "instruction"))
    w.promote("plan", "STRING", "", (made["edit"], "text"))
    edges(w, Models(), sampling)
    w.give("plan_drawn", made["edit"], 3)
    note = """**Press Run.** No download, seconds on a CPU; these models know **toys only**. A rule plans.

1. Other numbers in *Toy World* are other toys.
2. *left of*, *right of*, *above*, *below* in the prompt move them.
3. *plan*: your own, as JSON, in place of the rule's.
"""
    root.add("MarkdownNote", (310, 200), [note], at=(0, 0), title="Read me", **DARK)
    first = root.add("SqueezeToyWorld", (310, TOY), [0], at=(0, 315), title="Toy 1, and the models")
    second = root.add("SqueezeToyWorld", (310, TOY), [2], at=(0, 545), title="Toy 2")
    joined = [(first, output, socket) for output, socket in enumerate(("model", "vae", "mllm", "dla", "picture_1"))]
    finish(
        w,
        Outside(
            "",
            "",
            machine=430,
            said=("Toys and models", "Say who stands where", "Result"),
            saved="squeeze_many",
            preview="The plan",
            shown="plan_drawn",
        ),
        [first, second],
        [*joined, (second, 4, "picture_2")],
    )
    return w


def adapter() -> Workflow:
    """Subjects by an MLLM's plan and an adapter."""
    w = Workflow(
        "many_subjects",
        "Subjects into one scene",
        "The MLLM plans, reads each subject by itself, and a layout in attention keeps them apart.",
    )
    prompt = "The character of picture 1 left of the toy of picture 2, a dog behind them, in a park"
    models = flux_mllm(w, "your_adapter.safetensors", "LLM/InternVL3-8B-hf")
    made = planned(w, prompt, 2, 1024, 420)
    tokens = references(w, models, 2, 320, "auto", (900, 0))
    g = w.inner
    assert models.text is not None and models.dla is not None
    g.link(models.text[0], made["plan"], "mllm")
    g.link(models.text[0], made["encode"], "mllm")
    g.link(models.dla[0], made["encode"], "dla", models.dla[1])
    g.link(tokens[-1], made["encode"], "references")
    sampling = sample(
        w,
        models,
        (made["layout"], 0),
        None,
        x=1300,
        gate=(0.95, 0.85, "drop", 2.5),
        steps=28,
        curve="cosine",
        side=1024,
    )
    for number, token in enumerate(tokens, start=1):
        w.given(f"picture_{number}", "IMAGE", (made["plan"], f"images.picture_{number}"), (token, "image"))
    w.promote("prompt", "STRING", prompt, (made["plan"], "instruction"))
    w.promote("plan", "STRING", "", (made["edit"], "text"))
    edges(w, models, sampling)
    w.give("plan_drawn", made["edit"], 3)
    arrange(
        w,
        Outside(
            "**Press Run.** The MLLM plans who stands where, then reads each subject alone.\n\n"
            "1. Name each *picture* by its number; *Load Image* in the place of the toy.\n"
            "2. *plan*: your own, as JSON, in place of the MLLM's.\n"
            "3. More pictures: a *Reference Tokens* more inside, for each.",
            f"""{NO_WEIGHTS}

{table("flux1-dev.safetensors", "ae.safetensors", "InternVL3-8B-hf", "your_adapter.safetensors")}""",
            pictures=("Picture 1", "Picture 2: a toy"),
            sockets=("picture_1", "picture_2"),
            note=120,
            machine=480,
            said=("Subjects", "Say who stands where", "Result"),
            preview="The plan",
            shown="plan_drawn",
        ),
    )
    return w


def boxes() -> Workflow:
    """UNO and T5, public weights: boxes drawn on core's canvas."""
    w = Workflow(
        "two_subjects_with_boxes",
        "Two subjects, each in its box",
        "Words and references of each subject are seen in its own box only; UNO's LoRA, T5, no adapter.",
    )
    first = "the cartoon character of the picture, on the left, on a park bench in autumn"
    second = "the small toy of the picture, on the right, on a park bench in autumn"
    models = flux_t5(w, "flux1-dev.safetensors", "dit_lora.safetensors")
    g = w.inner
    words = [text(w, models, first, (420, 0)), text(w, models, second, (420, 240))]
    tokens = []
    g.column(820)
    for number in (1, 2):
        node = g.add(
            "SqueezeReferenceTokens",
            (320, 240),
            [320, "uxo", "resize", 1.0, 1.1, 0.0],
            title=f"Reference Tokens: picture {number}",
        )
        assert models.vae is not None
        g.link(models.vae[0], node, "vae")
        tokens.append(node)
    g.column(1200)
    subjects: list[dict] = []
    for number, (word, token) in enumerate(zip(words, tokens), start=1):
        node = g.add("SqueezeSubject", (320, 150), [f"subject {number}"], title=f"Subject {number}")
        g.link(word, node, "conditioning")
        g.link(token, node, "references")
        if subjects:
            g.link(subjects[-1], node, "subjects")
        subjects.append(node)
    layout = g.add("SqueezeApplyLayout", (320, 130), [0.0], **PURPLE)
    g.link(subjects[-1], layout, "subjects")
    sampling = sample(
        w,
        models,
        (layout, 0),
        None,
        x=1600,
        gate=(0.95, 0.85, "keep", 4.0),
        steps=25,
        curve="flux",
        side=1024,
        shift="ModelSamplingFlux",
    )
    for number, token in enumerate(tokens, start=1):
        w.given(f"picture_{number}", "IMAGE", (token, "image"))
    w.given("boxes", "BOUNDING_BOX", (layout, "boxes"))
    w.promote("subject_1", "STRING", first, (words[0], "text"))
    w.promote("subject_2", "STRING", second, (words[1], "text"))
    edges(w, models, sampling, ("tau_1",))
    files = table(
        "flux1-dev.safetensors",
        "dit_lora.safetensors",
        "clip_l.safetensors",
        "t5xxl_fp8_e4m3fn_scaled.safetensors",
        "ae.safetensors",
    )
    around_canvas(
        w,
        "**Press Run.** Public weights; no adapter is needed.\n\n"
        "1. Two *pictures* (*Load Image* in the place of the toy), and what each subject does, with its place.\n"
        "2. Draw a *box* for each, in their order. The canvas needs Nodes 2.0; the classic page keeps its boxes.\n"
        "3. *tau_1* up: more likeness.",
        f"{files}\n\nUNO was trained without boxes; we have not run this at full size.",
    )
    return w


def around_canvas(w: Workflow, read: str, files: str) -> None:
    """Pictures, core's canvas for boxes, the machine, and the result, each a group."""
    root = w.root
    picture = root.add(
        "LoadImage", (220, BOTTOM - TOY - 100), ["example.png", "image"], at=(0, 40), title="Picture 1"
    )
    toy = root.add("SqueezeToyWorld", (220, TOY), [0], at=(0, BOTTOM - TOY), title="Picture 2: a toy")
    box = {
        "metadata": {"type": "obj", "text": "", "desc": "", "palette": []},
        "y": 256,
        "width": 448,
        "height": 704,
    }
    drawn = [{"x": 48, **box}, {"x": 528, **box}]
    values = [1024, 1024, drawn, []]
    canvas = root.add(
        "CreateBoundingBoxes", (290, BOTTOM - 40), values, at=(280, 40), title="A box for each subject"
    )
    machine = w.machine((630, 40), (370, 440))
    save = root.add("SaveImage", (360, 405), [w.name], at=(1060, 40), title="Result")
    root.add("MarkdownNote", (370, BOTTOM - 545), [read], at=(630, 545), title="Read me", **DARK)
    note = "Files and what they know"
    root.add("MarkdownNote", (360, BOTTOM - 505), [files], at=(1060, 505), title=note, **DARK)
    root.link(picture, machine, "picture_1")
    root.link(toy, machine, "picture_2", 4)
    root.link(canvas, machine, "boxes", 1)
    root.link(machine, save, "images", "image")
    w.frame("Subjects", (picture, toy))
    w.frame("Say where each one stands", (canvas,), PURPLE_FRAME)
    w.frame("Say what each one does", (machine,), PURPLE_FRAME)
    w.frame("Result", (save,))


ALL = (toy, adapter, boxes)
