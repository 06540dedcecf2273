"""Machinery that several workflows share, each part a column or two of the subgraph."""

from __future__ import annotations

from dataclasses import dataclass

from form import GREEN, PURPLE, Graph, Workflow

W = 340  # of a node inside


@dataclass
class Models:
    """The nodes that give MODEL (before the sampling shift), CLIP or MLLM and DLA, and VAE, and which output.

    None: from outside the subgraph. shown: what is promoted last: name, value, type, node, its widget.
    """

    model: tuple[dict, int] | None = None
    vae: tuple[dict, int] | None = None
    text: tuple[dict, int] | None = None
    dla: tuple[dict, int] | None = None
    shown: list[tuple[str, str, str, dict, str]] | None = None

    def promote(self, w: Workflow) -> None:
        for name, value, kind, node, widget in self.shown or []:
            w.promote(name, kind, value, (node, widget))


def flux_t5(w: Workflow, flux: str, lora: str = "") -> Models:
    """FLUX.1 with its own text encoders."""
    g = w.inner
    g.column(0)
    unet = g.add("UNETLoader", (W, 90), [flux, "default"])
    model, shown = unet, [("diffusion_model", flux, "COMBO", unet, "unet_name")]
    if lora:
        model = g.add("LoraLoaderModelOnly", (W, 90), [lora, 1.0], title="Load LoRA: UNO")
        g.link(unet, model, "model")
        shown.append(("lora", lora, "COMBO", model, "lora_name"))
    clip = g.add(
        "DualCLIPLoader", (W, 130), ["clip_l.safetensors", "t5xxl_fp8_e4m3fn_scaled.safetensors", "flux", "default"]
    )
    vae = g.add("VAELoader", (W, 60), ["ae.safetensors"])
    shown.append(("vae", "ae.safetensors", "COMBO", vae, "vae_name"))
    return Models((model, 0), (vae, 0), (clip, 0), shown=shown)


def one_clip(w: Workflow, model: str, clip: str, kind: str, vae: str, lora: str = "") -> Models:
    """A model with one text encoder."""
    g = w.inner
    g.column(0)
    unet = g.add("UNETLoader", (W, 90), [model, "default"])
    last, shown = unet, [("diffusion_model", model, "COMBO", unet, "unet_name")]
    if lora:
        last = g.add("LoraLoaderModelOnly", (W, 90), [lora, 1.0])
        g.link(unet, last, "model")
        shown.append(("lora", lora, "COMBO", last, "lora_name"))
    text = g.add("CLIPLoader", (W, 110), [clip, kind, "default"])
    decoder = g.add("VAELoader", (W, 60), [vae])
    shown += [
        ("text_encoder", clip, "COMBO", text, "clip_name"),
        ("vae", vae, "COMBO", decoder, "vae_name"),
    ]
    return Models((last, 0), (decoder, 0), (text, 0), shown=shown)


def flux_mllm(w: Workflow, adapter: str, mllm: str, lora: str = "") -> Models:
    """FLUX.1-dev heard through an MLLM."""
    g, flux = w.inner, "flux1-dev.safetensors"
    g.column(0)
    unet = g.add("UNETLoader", (W, 90), [flux, "default"])
    last, shown = unet, [("diffusion_model", flux, "COMBO", unet, "unet_name")]
    if lora:
        last = g.add("LoraLoaderModelOnly", (W, 90), [lora, 1.0])
        g.link(unet, last, "model")
        shown.append(("lora", lora, "COMBO", last, "lora_name"))
    loaded = g.add("SqueezeLoadAdapter", (W, 180), [adapter, 1.0])
    g.link(last, loaded, "model")
    reader = g.add("SqueezeLoadMLLM", (W, 140), [mllm, "default", "default"])
    vae = g.add("VAELoader", (W, 60), ["ae.safetensors"])
    shown += [
        ("adapter", adapter, "COMBO", loaded, "adapter"),
        ("mllm", mllm, "COMBO", reader, "model"),
        ("vae", "ae.safetensors", "COMBO", vae, "vae_name"),
    ]
    return Models((loaded, 0), (vae, 0), (reader, 0), (loaded, 1), shown)


def references(
    w: Workflow, models: Models, pictures: int, long_side: int, placement: str, at: tuple[int, int]
) -> list[dict]:
    """Reference Tokens, a chain of one for each picture."""
    g, made = w.inner, []
    g.column(*at)
    for number in range(1, pictures + 1):
        title = {} if pictures == 1 else {"title": f"Reference Tokens: picture {number}"}
        node = g.add("SqueezeReferenceTokens", (320, 240), [long_side, placement, "resize", 1.0, 1.1, 0.0], **title)
        if models.vae is not None:
            g.link(models.vae[0], node, "vae", models.vae[1])
        if made:
            g.link(made[-1], node, "references")
        made.append(node)
    return made


@dataclass
class Sampling:
    """What the last part consists of."""

    gate: dict
    sigmas: dict
    noise: dict
    guider: dict
    decode: dict
    show: dict


def sample(
    w: Workflow,
    models: Models,
    conditioning: tuple[dict, int],
    shown: dict | None,
    *,
    x: int,
    gate: tuple[float, float, str, float],
    steps: int,
    curve: str,
    side: int,
    seed: int = 42,
    shift: str = "",
    latent: str = "EmptySD3LatentImage",
    cfg: float = 0.0,
    negative: tuple[dict, int] | None = None,
    both: bool = False,
) -> Sampling:
    """Gate, sigmas, sampler, decoding, and the gate drawn.

    shown: the last Reference Tokens. gate: tau_1, tau_2, late, guidance. shift: ModelSamplingFlux or the like.
    curve: of Sigmas, or the kind of a scheduler of ComfyUI. cfg: with a negative, true classifier-free guidance.
    both: the negative has references too, and goes through the gate as well.
    """
    g = w.inner
    g.column(x)
    gated = g.add("SqueezeTimestepGate", (320, 346), [*gate, "as given"], **PURPLE)
    g.link(conditioning[0], gated, "conditioning", conditioning[1])
    if shown is not None:
        g.link(shown, gated, "references")
    if both and negative:
        g.link(negative[0], gated, "negative", negative[1])
        negative = (gated, 1)
    model, slot = models.model or (None, 0)  # None: it comes from outside
    if shift == "ModelSamplingFlux":
        moved = g.add(shift, (320, 140), [1.15, 0.5, side, side])
    elif shift:
        moved = g.add(shift, (320, 60), [3.1])
    if shift:
        g.link(model, moved, "model", slot)
        model, slot = moved, 0
    if curve == "Flux2Scheduler":
        sigmas = g.add(curve, (320, 110), [steps, side, side])
    else:
        sigmas = g.add("SqueezeSigmas", (320, 110), [steps, curve, 1.0])
        if model:
            g.link(model, sigmas, "model", slot)
    noise = g.add("RandomNoise", (320, 84), [seed, "fixed"])
    sampler = g.add("KSamplerSelect", (320, 60), ["euler"])
    empty = g.add(latent, (320, 110), [side, side, 1])
    g.column(x + 400)
    if negative is None:
        guider = g.add("BasicGuider", (320, 56))
        g.link(gated, guider, "conditioning")
    else:
        guider = g.add("CFGGuider", (320, 110), [cfg])
        g.link(gated, guider, "positive")
        g.link(negative[0], guider, "negative", negative[1])
    if model:
        g.link(model, guider, "model", slot)
    run = g.add("SamplerCustomAdvanced", (320, 112))
    for origin, name in ((noise, "noise"), (guider, "guider"), (sampler, "sampler"), (sigmas, "sigmas")):
        g.link(origin, run, name)
    g.link(empty, run, "latent_image")
    decode = g.add("VAEDecode", (320, 56))
    g.link(run, decode, "samples")
    if models.vae is not None:
        g.link(models.vae[0], decode, "vae", models.vae[1])
    show = g.add("SqueezeShowGate", (320, 60))
    g.link(gated, show, "conditioning")
    g.link(sigmas, show, "sigmas")
    if both and negative:
        g.link(gated, show, "negative", 1)
    return Sampling(gated, sigmas, noise, guider, decode, show)


def encoded(w: Workflow, models: Models, prompt: str, pictures: int, at: tuple[int, int], *, asks: bool = True):
    """Encode and Aggregate: the MLLM's layers, pooled. asks: the adapter says how the MLLM wants to be asked."""
    g = w.inner
    g.column(*at)
    encode = g.add("SqueezeEncode", (400, 300), [prompt, "", 1], **GREEN)
    assert models.text is not None and models.dla is not None
    g.link(models.text[0], encode, "mllm", models.text[1])
    if asks:
        g.link(models.dla[0], encode, "for_adapter", models.dla[1])
    pooled = g.add("SqueezeAggregate", (400, 172), ["all", "all"])
    g.link(encode, pooled, "states")
    g.link(models.dla[0], pooled, "dla", models.dla[1])
    layers = g.add("SqueezeShowLayers", (400, 60))
    g.link(pooled, layers, "weights", "weights")
    return encode, pooled, layers


def drop(g: Graph, node: dict, name: str) -> None:
    """Take an unconnected optional socket away: a growing input that is not used."""
    node["inputs"] = [socket for socket in node["inputs"] if socket["name"] != name or socket["link"] is not None]
