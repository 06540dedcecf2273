"""The gate on models that the public has: no adapter is needed."""

from __future__ import annotations

from arrange import Outside, arrange
from form import GREEN, Workflow
from parts import Models, Sampling, W, flux_t5, one_clip, references, sample

from squeeze_core.diagnosis.files import table

TAUS = """1. Another *picture*: say in the prompt what its subject does.
2. *tau_1* down: a freer layout, less likeness. 1.1 shows the picture from the first step, as without the gate.
3. *tau_2* has no say: *late* is keep, as these weights were trained.
"""


def text(w: Workflow, models: Models, prompt: str, at: tuple[int, int]) -> dict:
    """CLIP Text Encode."""
    assert models.text is not None
    w.inner.column(*at)
    node = w.inner.add("CLIPTextEncode", (W, 180), [prompt], **GREEN)
    w.inner.link(models.text[0], node, "clip", models.text[1])
    return node


def edges(w: Workflow, models: Models, made: Sampling, prompt: tuple) -> None:
    """What a person changes, in the order of the node."""
    value, *targets = prompt
    w.promote("prompt", "STRING", value, *targets)
    w.promote("tau_1", "FLOAT", made.gate["widgets_values"][0], (made.gate, "tau_1"))
    w.promote("steps", "INT", made.sigmas["widgets_values"][0], (made.sigmas, "steps"))
    if made.guider["type"] == "CFGGuider":
        w.promote("cfg", "FLOAT", made.guider["widgets_values"][0], (made.guider, "cfg"))
    w.promote("seed", "INT", made.noise["widgets_values"][0], (made.noise, "noise_seed"))
    models.promote(w)
    w.give("image", made.decode)
    w.give("gate", made.show)


def kontext() -> Workflow:
    w = Workflow("gate_with_kontext", "Subject into a new scene", "FLUX.1 Kontext, its reference behind the gate.")
    prompt = "The same character reads a book in a sunny library, seen from the side"
    models = flux_t5(w, "flux1-dev-kontext_fp8_scaled.safetensors")
    words = text(w, models, prompt, (420, 0))
    tokens = references(w, models, 1, 1024, "offset", (420, 260))
    made = sample(
        w, models, (words, 0), tokens[-1], x=840, gate=(0.95, 0.85, "keep", 2.5), steps=28, curve="flux", side=1024
    )
    w.given("picture", "IMAGE", (tokens[0], "image"))
    edges(w, models, made, (prompt, (words, "text")))
    arrange(
        w,
        Outside(
            "**Press Run.** Kontext sees its picture in every step and copies pose and framing. Here the first "
            f"steps hear the prompt alone; no adapter is needed.\n\n{TAUS}",
            f"""**Files.** Public weights.

{
                table(
                    "flux1-dev-kontext_fp8_scaled.safetensors",
                    "clip_l.safetensors",
                    "t5xxl_fp8_e4m3fn_scaled.safetensors",
                    "ae.safetensors",
                )
            }

The reference is 1024 px, at an offset beside the picture, as Kontext was trained.""",
            note=230,
            machine=330,
        ),
    )
    return w


def uno() -> Workflow:
    w = Workflow("gate_with_uno_lora", "Subject into a new scene", "FLUX.1-dev with UNO's LoRA behind the gate.")
    prompt = "The cartoon character sits on a park bench in autumn and reads a book"
    models = flux_t5(w, "flux1-dev.safetensors", "dit_lora.safetensors")
    words = text(w, models, prompt, (420, 0))
    tokens = references(w, models, 1, 0, "uxo", (420, 260))
    made = sample(
        w,
        models,
        (words, 0),
        tokens[-1],
        x=840,
        gate=(0.95, 0.85, "keep", 4.0),
        steps=25,
        curve="flux",
        side=704,
        shift="ModelSamplingFlux",
    )
    w.given("picture", "IMAGE", (tokens[0], "image"))
    edges(w, models, made, (prompt, (words, "text")))
    arrange(
        w,
        Outside(
            "**Press Run.** UNO is a LoRA that lets FLUX.1-dev read reference tokens. The first steps hear the "
            f"prompt alone; no adapter is needed.\n\n{TAUS}",
            f"""**Files.** Public weights. UNO's file loads as it is; you may rename it.

{
                table(
                    "flux1-dev.safetensors",
                    "dit_lora.safetensors",
                    "clip_l.safetensors",
                    "t5xxl_fp8_e4m3fn_scaled.safetensors",
                    "ae.safetensors",
                )
            }""",
            note=230,
            machine=350,
        ),
    )
    return w


def qwen_image_edit() -> Workflow:
    """True CFG with references on both sides: both go through the gate."""
    w = Workflow(
        "gate_with_qwen_image_edit", "Subject into a new scene", "Qwen-Image-Edit, references behind the gate."
    )
    prompt = "The character of the picture reads a book in a sunny library, seen from the side"
    models = one_clip(
        w,
        "qwen_image_edit_2511_fp8mixed.safetensors",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "qwen_image",
        "qwen_image_vae.safetensors",
    )
    g = w.inner
    g.column(420)
    sides = []
    for value, title in ((prompt, "Prompt"), ("", "Negative: empty, with the picture")):
        node = g.add("TextEncodeQwenImageEditPlus", (W, 200), [value], title=title, **GREEN)
        assert models.text is not None
        g.link(models.text[0], node, "clip")
        g.link(models.vae[0], node, "vae")
        sides.append(node)
    norm = g.add("CFGNorm", (W, 80), [1.0, False])
    g.link(models.model[0], norm, "model")
    models.model = (norm, 0)
    made = sample(
        w,
        models,
        (sides[0], 0),
        None,
        x=840,
        gate=(0.95, 0.85, "keep", -1.0),
        steps=40,
        curve="flux",
        side=1024,
        shift="ModelSamplingAuraFlow",
        cfg=4.0,
        negative=(sides[1], 0),
        both=True,
    )
    w.given("picture", "IMAGE", *((side, "image1") for side in sides))
    edges(w, models, made, (prompt, (sides[0], "prompt")))
    arrange(
        w,
        Outside(
            "**Press Run.** Qwen-Image-Edit reads prompt and picture together, and sees VAE tokens beside them: "
            f"no adapter is needed. The gate holds the tokens back in the first steps, on both sides.\n\n{TAUS}",
            f"""**Files.** Public weights, Apache-2.0.

{
                table(
                    "qwen_image_edit_2511_fp8mixed.safetensors",
                    "qwen_2.5_vl_7b_fp8_scaled.safetensors",
                    "qwen_image_vae.safetensors",
                )
            }

Guidance has two sides, each with the picture: both go through the gate, else they part.""",
            note=250,
            machine=350,
        ),
    )
    return w


def krea2() -> Workflow:
    w = Workflow("gate_with_krea2", "Subject into a new scene", "Krea 2, its references behind the gate.")
    prompt = "The character of the picture reads a book in a sunny library, seen from the side"
    models = one_clip(
        w,
        "krea2_turbo_fp8_scaled.safetensors",
        "qwen3vl_4b_fp8_scaled.safetensors",
        "krea2",
        "qwen_image_vae.safetensors",
        "krea2_style_reference.safetensors",
    )
    g = w.inner
    g.column(420)
    words = g.add("TextEncodeQwenImageEditPlus", (W, 200), [prompt], **GREEN)
    assert models.text is not None
    g.link(models.text[0], words, "clip")
    g.link(models.vae[0], words, "vae")
    method = g.add("FluxKontextMultiReferenceLatentMethod", (W, 60), ["index_timestep_zero"])
    g.link(words, method, "conditioning")
    made = sample(
        w,
        models,
        (method, 0),
        None,
        x=840,
        gate=(0.95, 0.85, "keep", -1.0),
        steps=8,
        curve="flux",
        side=1024,
        shift="ModelSamplingFlux",
        latent="EmptyLatentImage",
    )
    w.given("picture", "IMAGE", (words, "image1"))
    edges(w, models, made, (prompt, (words, "prompt")))
    arrange(
        w,
        Outside(
            "**Press Run.** Krea 2 pools twelve layers of an MLLM that reads prompt and picture together, and sees "
            f"VAE tokens beside them: no adapter is needed.\n\n{TAUS}",
            f"""**Files.** Public weights.

{
                table(
                    "krea2_turbo_fp8_scaled.safetensors",
                    "krea2_style_reference.safetensors",
                    "qwen3vl_4b_fp8_scaled.safetensors",
                    "qwen_image_vae.safetensors",
                )
            }

The LoRA was trained to take a picture's style; how well it keeps a subject we have not run at full size.""",
            note=230,
            machine=370,
        ),
    )
    return w


def klein() -> Workflow:
    w = Workflow(
        "gate_with_flux2_klein", "Subject into a new scene", "FLUX.2 klein, its references behind the gate."
    )
    prompt = "The character of the picture reads a book in a sunny library, seen from the side"
    models = one_clip(
        w, "flux-2-klein-4b-fp8.safetensors", "qwen_3_4b.safetensors", "flux2", "flux2-vae.safetensors"
    )
    words = text(w, models, prompt, (420, 0))
    tokens = references(w, models, 1, 1024, "auto", (420, 260))
    made = sample(
        w,
        models,
        (words, 0),
        tokens[-1],
        x=840,
        gate=(0.98, 0.85, "keep", -1.0),
        steps=4,
        curve="Flux2Scheduler",
        side=1024,
        latent="EmptyFlux2LatentImage",
    )
    w.given("picture", "IMAGE", (tokens[0], "image"))
    edges(w, models, made, (prompt, (words, "text")))
    arrange(
        w,
        Outside(
            "**Press Run.** FLUX.2 klein makes a picture in four steps. The gate keeps its reference out of the "
            f"first: a freer layout; no adapter is needed.\n\n{TAUS}",
            f"""**Files.** Public weights, Apache-2.0.

{table("flux-2-klein-4b-fp8.safetensors", "qwen_3_4b.safetensors", "flux2-vae.safetensors")}""",
            note=230,
            machine=350,
        ),
    )
    return w


ALL = (kontext, uno, qwen_image_edit, krea2, klein)
