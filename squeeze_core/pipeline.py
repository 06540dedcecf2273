"""Headless generation: a prompt and reference pictures -> FLUX pictures, on diffusers.

`SqueezePipeline.generate` runs the whole of it; its steps are methods of their own: `encode` (MLLM),
`aggregate` (DLA), `encode_references` (VAE), `sample` (FLUX under the gate), `decode`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from . import adapter as adapter_file
from . import references
from .adapter import Adapter, AdapterConfig
from .attention.rules import AttentionRules, Layout
from .dla import Aggregator, LayerWeights
from .errors import SqueezeError
from .finite import DLA_ADVICE, FLUX_ADVICE, VAE_ADVICE, check_finite
from .flux import clip as clip_text
from .flux import loading
from .flux.clip import PooledText
from .flux.conditioning import Conditioning, late_context, null
from .flux.lora import apply_lora, remove_lora
from .flux.model import spec_of, velocity
from .flux.sampling import euler, seeded_noise
from .flux.step_cache import remembering, step_cache
from .flux.tokens import DOWNSCALE
from .flux.vae import decode_latents, encode_pixels, scale_latents, unscale_latents
from .gate import Gate, Stage
from .generation import GenerationResult, GenerationSettings
from .images import as_rgb, mask_to_tensor, to_picture, to_tensor
from .layers import LayerSelection
from .mllm.backbone import Backbone, Prompt
from .mllm.prompt import check_prompt
from .mllm.states import LayerStates
from .offload import visiting
from .references import MULTIPLE, Placement, ReferencePicture, References, check_masks
from .sigmas import flux_mu
from .sigmas import sigmas as noise_levels
from .windows import part_of, parts

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from .toyworld import ToyWorld

# Called with (what, done, total), what being "encode", "references", "sample" or "decode". May raise to stop.
Progress = Callable[[str, int, int], None]

_KEPT_PROMPTS = (
    16  # encoded prompts kept, about 50 MB each for InternVL3-8B with one picture: a scene of twelve fits
)
_KEPT_REFERENCES = 32


class SqueezePipeline:
    """FLUX.1, its VAE, an MLLM and what an adapter holds, ready to generate.

    clip: for adapters trained with CLIP-L's pooled vector. device: None means a CUDA GPU if there is one, else the
    CPU. offload: the models rest on the CPU, and only the one at work is on the device. An encoded prompt or
    reference is kept, so that another gate, seed, schedule, guidance, layer selection or adapter (`use_adapter`)
    runs neither the MLLM nor the VAE again.

    Raises `SqueezeError` unless the adapter's config fits the MLLM and FLUX.
    """

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        mllm: Backbone,
        dla: Aggregator,
        config: AdapterConfig,
        *,
        clip: PooledText | None = None,
        device: torch.device | str | None = None,
        offload: bool = False,
    ) -> None:
        _check(config, mllm, transformer)
        if clip is not None:
            clip.check_width(transformer.config.pooled_projection_dim)
        self.transformer, self.vae, self.mllm, self.dla, self.config = transformer, vae, mllm, dla, config
        self.clip = clip
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.offload = offload
        self._fused = False
        self._prompts: OrderedDict[tuple, LayerStates] = OrderedDict()
        self._latents: OrderedDict[str, torch.Tensor] = OrderedDict()
        if not offload:
            for module in (transformer, vae, mllm.model, dla, *((clip.model,) if clip is not None else ())):
                module.to(self.device)

    @classmethod
    def from_files(
        cls,
        flux: str | Path,
        vae: str | Path | None,
        mllm: str | Path,
        adapter: str | Path | Adapter,
        *,
        clip: str | Path | None = None,
        dtype: loading.Dtype = "default",
        mllm_dtype: Any = "default",
        strength: float = 1.0,
        fuse: bool = False,
        device: torch.device | str | None = None,
        offload: bool = False,
    ) -> SqueezePipeline:
        """Load everything from the disk; nothing is downloaded.

        flux, vae: diffusers folders, or .safetensors files in the published layout; vae None means the VAE in
        the folder of flux. mllm: a folder, see `mllm.load`. adapter: a file, or as loaded. clip: a folder, see
        `clip.load`, for an adapter that asks for it; None means the one in the folder of flux. dtype: of FLUX and
        the VAE. strength, fuse: of the LoRA, see `apply_lora`. Raises `SqueezeError` for what does not fit.
        """
        from .mllm.loading import load as load_mllm

        # The smallest first: its mistakes should not cost minutes.
        loaded = adapter if isinstance(adapter, Adapter) else adapter_file.load(adapter)
        backbone = load_mllm(mllm, mllm_dtype, device="cpu")
        loaded.config.check_mllm(backbone.identity)
        words = clip_text.load(flux if clip is None else clip) if loaded.config.pooled == "clip_l" else None
        autoencoder = loading.load_vae(flux if vae is None else vae, dtype)
        transformer = loading.load_flux(flux, dtype)
        return cls._adapted(transformer, autoencoder, backbone, loaded, strength, fuse, device, offload, words)

    @classmethod
    def from_toy_world(
        cls, toy: ToyWorld, *, strength: float = 1.0, fuse: bool = True, device: torch.device | str = "cpu"
    ) -> SqueezePipeline:
        """The tiny models of `toyworld.load`; the LoRA goes into the toy's own transformer."""
        return cls._adapted(toy.transformer, toy.vae, toy.mllm, toy.adapter, strength, fuse, device, False)

    @classmethod
    def _adapted(
        cls,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        mllm: Backbone,
        adapter: Adapter,
        strength: float,
        fuse: bool,
        device: torch.device | str | None,
        offload: bool,
        clip: PooledText | None = None,
    ) -> SqueezePipeline:
        adapter.config.check_dit(spec_of(transformer))
        apply_lora(transformer, adapter.lora, strength, fuse)
        made = cls(
            transformer,
            vae,
            mllm,
            adapter.aggregator,
            adapter.config,
            clip=clip,
            device=device,
            offload=offload,
        )
        made._fused = fuse and bool(adapter.lora)
        return made

    def use_adapter(self, adapter: str | Path | Adapter, strength: float = 1.0) -> None:
        """Change to another adapter for the same models. Prompts stay encoded: the MLLM does not run again.

        Only while the LoRA stands apart from FLUX's weights. Raises `SqueezeError`, and then nothing has
        changed, when the adapter does not fit or the present LoRA is fused.
        """
        if self._fused:
            raise SqueezeError("The present LoRA is fused into FLUX's weights. Load the pipeline with fuse=False.")
        loaded = adapter if isinstance(adapter, Adapter) else adapter_file.load(adapter)
        _check(loaded.config, self.mllm, self.transformer)
        remove_lora(self.transformer)
        apply_lora(self.transformer, loaded.lora, strength)
        self.dla, self.config = loaded.aggregator, loaded.config
        if not self.offload:
            self.dla.to(self.device)
            self.transformer.to(self.device)

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        settings: GenerationSettings | None = None,
        *,
        masks: Sequence[Image.Image | None] | None = None,
        mllm_images: Sequence[Image.Image] | None = None,
        pooled: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        sigmas: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> GenerationResult:
        """Everything from prompt to picture.

        images: references, in the order in which the prompt names them. masks: one for each, white at the
        subject, or None. mllm_images: other pictures for the MLLM to read; None means `images`.
        pooled: [1, 768] of CLIP-L, for adapters trained with it, instead of that of the prompt.
        noise: [batch, 16, height / 8, width / 8] instead of a seed. sigmas: [steps + 1], falling, instead of steps
        and curve. Raises `SqueezeError`.
        """
        settings = settings or GenerationSettings()
        levels = self.levels(settings, sigmas)
        noise = self.starting_noise(settings, noise)
        request = check(self.config, prompt, images, settings, masks, mllm_images)
        states = self.encode(request.prompt, progress)
        context, weights = self.aggregate(states, request.text_layers, request.image_layers)
        encoded = self.encode_references(request.references, settings.placement, progress)
        gate = settings.gate or self.config.gate
        latents = self.sample(
            context[None],
            self.pooled_vector(pooled, prompt, context),
            encoded,
            noise,
            levels,
            gate=gate,
            guidance=settings.guidance,
            true_cfg=settings.true_cfg,
            cache=settings.cache,
            progress=progress,
        )
        stages = [gate.stage(float(s)) if encoded.latents else Stage.EARLY for s in levels[:-1]]
        images = self.decode(latents, progress)
        return GenerationResult(latents, images, encoded, levels, stages, weights, states.tokens)

    @torch.no_grad()
    def encode(self, prompt: Prompt, progress: Progress | None = None) -> LayerStates:
        """The MLLM's states for a prompt, on the CPU; kept for the next time."""
        return self.encode_many([prompt], progress)[0]

    @torch.no_grad()
    def encode_many(self, prompts: Sequence[Prompt], progress: Progress | None = None) -> list[LayerStates]:
        """Those of each prompt, like `encode`; what is not known yet is read in as few passes as memory bears."""
        keys = [_prompt_key(prompt) for prompt in prompts]
        known = {key: self._prompts[key] for key in keys if key in self._prompts}
        new = {key: prompt for key, prompt in zip(keys, prompts) if key not in known}
        if new:
            with self.at_work(self.mllm.model):
                made = self.mllm.encode_many(
                    list(new.values()), device=self.device, store_device="cpu", progress=_named(progress, "encode")
                )
            known.update(zip(new, made))
        for key in keys:
            _keep(self._prompts, key, known[key], _KEPT_PROMPTS)
        return [known[key] for key in keys]

    def encode_ahead(self, wanted: Iterable[Sequence[Prompt]], progress: Progress | None = None) -> None:
        """Read what is asked for soon, in one go: the first of `wanted`, and then as many as can be kept.

        wanted: prompts of one picture after the other. Reads nothing when those of the first are kept already.
        """
        ahead: dict[Any, Prompt] = {}
        for turn, prompts in enumerate(wanted):
            new = {_prompt_key(prompt): prompt for prompt in prompts}
            if turn == 0 and new.keys() <= self._prompts.keys():
                return
            if turn > 0 and len(ahead.keys() | new.keys()) > _KEPT_PROMPTS:
                break
            ahead.update(new)
        # The first are asked for first, and what is kept last stays longest.
        self.encode_many(list(ahead.values())[::-1], progress)

    @torch.no_grad()
    def aggregate(
        self,
        states: LayerStates,
        text_layers: LayerSelection | None = None,
        image_layers: LayerSelection | None = None,
    ) -> tuple[torch.Tensor, LayerWeights]:
        """Context [tokens, width] on the device, and what each layer gave. Raises `SqueezeError`."""
        self.config.check_states(states.model_id)
        there = states.to(self.device, next(self.dla.parameters()).dtype)
        with self.at_work(self.dla):
            context, weights = self.dla(
                there.states, there.image_mask, text_layers=text_layers, image_layers=image_layers
            )
        return check_finite(context, "The adapter's aggregator gave a context", DLA_ADVICE), weights

    @torch.no_grad()
    def encode_references(
        self,
        pictures: Sequence[ReferencePicture],
        placement: Placement = "auto",
        progress: Progress | None = None,
    ) -> References:
        """VAE latents of the pictures, on the CPU; each is kept for the next time."""
        done = 0

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            nonlocal done
            key = _digest(pixels)
            if key not in self._latents:
                latents = encode_pixels(self.vae, pixels, self.device).float().cpu()
                check_finite(latents, "The VAE gave latents of a reference", VAE_ADVICE)
                _keep(self._latents, key, latents, _KEPT_REFERENCES)
            self._latents.move_to_end(key)
            done += 1
            if progress is not None:
                progress("references", done, len(pictures))
            return self._latents[key]

        with self.at_work(self.vae) if pictures else nullcontext():
            encoded = references.encode(pictures, encode, placement)
        return references.with_placement(encoded, self.config.placement)

    @torch.no_grad()
    def sample(
        self,
        context: torch.Tensor,
        pooled: torch.Tensor,
        encoded: References,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *,
        gate: Gate | None = None,
        guidance: float | None = None,
        true_cfg: float = 1.0,
        layout: Layout | None = None,
        cache: float = 0.0,
        progress: Progress | None = None,
    ) -> torch.Tensor:
        """Euler steps under the gate: raw latents like `noise`, float32 on the CPU.

        context: [1, tokens, width]. pooled: [1, 768]. noise: [batch, 16, h, w]. sigmas: [steps + 1].
        layout: whose the words and references are, and where each subject is.
        cache: threshold of the first-block cache, see `flux.step_cache`; 0 for none. One that was enabled on the
        transformer before is respected.
        Where no reference is heard, the context is, because nothing could take over from it.
        """
        gate = gate or self.config.gate
        guidance = self.config.guidance if guidance is None else guidance
        scaled = [scale_latents(self.vae, latent).to(self.device) for latent in encoded.latents]
        audible = [number for number, item in enumerate(encoded.items) if item.strength > 0]
        found = parts(gate, [encoded.items[number].window for number in audible])

        def heard(sigma: float) -> Conditioning:
            part = part_of(found, sigma)
            there = [audible[number] for number in part.references]
            said, vector = (context, pooled) if part.text else late_context(gate.late, context, pooled)
            references = tuple(scaled[number] for number in there)
            rules = _rules(encoded, there, layout, sigma)
            if not part.text and gate.late == "drop":
                rules = replace(rules, words=())
            return Conditioning(said, vector, guidance, references, encoded.placement, rules=rules)

        unconditional = Conditioning(*null(context, pooled), self.config.guidance)
        levels = sigmas.to(self.device, torch.float32)

        def predict(step: int, latents: torch.Tensor) -> torch.Tensor:
            sigma = float(sigmas[step])
            apart = layout is not None and sigma >= layout.until
            with remembering(self.transformer, f"{part_of(found, sigma)} {apart}"):
                towards = velocity(self.transformer, latents, levels[step], heard(sigma))
            if true_cfg == 1:
                return towards
            with remembering(self.transformer, "null"):
                away = velocity(self.transformer, latents, levels[step], unconditional)
            return away + (towards - away) * true_cfg

        def step_done(step: int) -> None:
            if progress is not None:
                progress("sample", step, len(levels) - 1)

        with self.at_work(self.transformer), step_cache(self.transformer, cache):
            latents = euler(predict, noise.to(self.device, torch.float32), levels, step_done)
        check_finite(latents, "FLUX with the adapter's LoRA gave latents", FLUX_ADVICE)
        return unscale_latents(self.vae, latents).cpu()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, progress: Progress | None = None) -> list[Image.Image]:
        """Raw latents [batch, 16, h, w] -> RGB pictures, one at a time."""
        pictures = []
        with self.at_work(self.vae):
            for number, latent in enumerate(latents, start=1):
                pixels = decode_latents(self.vae, latent[None], self.device)[0]
                pictures.append(to_picture(check_finite(pixels, "The VAE gave pixels", VAE_ADVICE)))
                if progress is not None:
                    progress("decode", number, len(latents))
        return pictures

    def at_work(self, module: torch.nn.Module) -> AbstractContextManager[None]:
        """Inside, the module is on the device; with `offload` it leaves it afterwards."""
        return visiting(module, self.device) if self.offload else nullcontext()

    def levels(self, settings: GenerationSettings, sigmas: torch.Tensor | None = None) -> torch.Tensor:
        """[steps + 1] sigmas: those given, or of the settings' curve. Raises `SqueezeError`."""
        if sigmas is None:
            tokens = settings.height * settings.width // MULTIPLE**2
            return noise_levels(settings.curve, settings.steps, mu=flux_mu(tokens))
        sigmas = torch.as_tensor(sigmas, dtype=torch.float32).cpu()
        if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas.diff() < 0).all() or sigmas[-1] != 0 or sigmas[0] > 1:
            raise SqueezeError(
                f"The sigmas given are {sigmas.tolist()[:4]}...; they must be at least two "
                "and fall from at most 1 to exactly 0."
            )
        return sigmas

    def starting_noise(self, settings: GenerationSettings, noise: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, 16, height / 8, width / 8]: that given, or of the settings' seed. Raises `SqueezeError`."""
        channels = self.vae.config.latent_channels
        if noise is None:
            return seeded_noise(settings.seed, settings.batch, channels, settings.height, settings.width)
        expected = (settings.batch, channels, settings.height // DOWNSCALE, settings.width // DOWNSCALE)
        if tuple(noise.shape) != expected:
            raise SqueezeError(
                f"The noise is {list(noise.shape)}; for {settings.batch} x {settings.height} x {settings.width} px "
                f"it must be {list(expected)}."
            )
        return noise

    def pooled_vector(self, pooled: torch.Tensor | None, prompt: str, context: torch.Tensor) -> torch.Tensor:
        """[1, 768]: that given, or as the adapter was trained with. Raises `SqueezeError`.

        context: [tokens, width], of which an aligner makes its own.
        """
        width = self.transformer.config.pooled_projection_dim
        if pooled is None:
            if self.config.pooled == "zeros":
                return torch.zeros(1, width, device=self.device)
            if self.config.pooled == "aligner":
                with self.at_work(self.dla):
                    return _of_width(self.dla.vector(context), width)
            if self.clip is None:
                raise SqueezeError(
                    "This adapter was trained with CLIP-L's pooled vector. Load the pipeline with a clip, or give "
                    f"pooled, of shape [1, {width}]."
                )
            with self.at_work(self.clip.model):
                return self.clip.encode([prompt])
        return _of_width(pooled, width).to(self.device)


def _of_width(pooled: torch.Tensor, width: int) -> torch.Tensor:
    if tuple(pooled.shape) != (1, width):
        raise SqueezeError(f"The pooled vector is {list(pooled.shape)}; it must be [1, {width}].")
    return pooled


def _check(config: AdapterConfig, mllm: Backbone, transformer: FluxTransformer2DModel) -> None:
    config.check_mllm(mllm.identity)
    config.check_dit(spec_of(transformer))
    config.check_attention()


def _rules(encoded: References, there: Sequence[int], layout: Layout | None, sigma: float) -> AttentionRules:
    """What attention is asked at a sigma, for the references that are heard there."""
    if layout is None or sigma < layout.until:
        return AttentionRules(tuple(encoded.items[number].rule() for number in there))
    if len(layout.references) != len(encoded.items):
        raise SqueezeError(
            f"The layout names owners of {len(layout.references)} references and there are {len(encoded.items)}. "
            "Give one for each, 0 for everybody's."
        )
    rules = tuple(encoded.items[number].rule(layout.references[number]) for number in there)
    return AttentionRules(rules, layout.words, layout.places)


@dataclass(frozen=True)
class Request:
    """What was asked for, found to fit. prompt: as the MLLM reads it."""

    prompt: Prompt
    references: list[ReferencePicture]
    text_layers: LayerSelection
    image_layers: LayerSelection


def check(
    config: AdapterConfig,
    prompt: str,
    images: Sequence[Image.Image],
    settings: GenerationSettings,
    masks: Sequence[Image.Image | None] | None = None,
    mllm_images: Sequence[Image.Image] | None = None,
) -> Request:
    """All that can be wrong about what `SqueezePipeline.generate` is asked, found with the adapter's config alone.

    So that it is known before gigabytes are loaded. Raises `SqueezeError` for layers that the MLLM does not have,
    an empty prompt or one that the MLLM cannot read, masks that do not fit and sides that are too small.
    """
    text, image = (LayerSelection.parse(layers) for layers in (settings.text_layers, settings.image_layers))
    for selection in (text, image):
        selection.indices(config.dla.layers)
    read = asked(config, prompt, images if mllm_images is None else mllm_images, settings)
    check_prompt(read)
    return Request(read, reference_pictures(images, masks, settings, config.long_side), text, image)


def asked(config: AdapterConfig, text: str, images: Sequence[Image.Image], settings: GenerationSettings) -> Prompt:
    """What the MLLM reads: as the adapter was trained, unless the settings say otherwise."""
    system = config.system_prompt if settings.system_prompt is None else settings.system_prompt
    tiles = config.tiles if settings.tiles is None else settings.tiles
    return Prompt(text, tuple(images), system, tiles, config.reading)


def reference_pictures(
    images: Sequence[Image.Image],
    masks: Sequence[Image.Image | None] | None,
    settings: GenerationSettings,
    trained: int = 0,
) -> list[ReferencePicture]:
    """Pictures with their masks. trained: the adapter's `long_side`, where the settings have none.

    Raises `SqueezeError` for a mask that does not fit, or too small a side.
    """
    check_masks(len(images), None if masks is None else len(masks))
    masks = [None] * len(images) if masks is None else masks
    return [
        ReferencePicture(
            to_tensor(image),
            None if mask is None else mask_to_tensor(mask),
            settings.long_side or trained,
            settings.fit,
        )
        for image, mask in zip(images, masks)
    ]


def _prompt_key(prompt: Prompt) -> tuple[Any, ...]:
    return prompt.text, tuple(map(_digest, prompt.images)), prompt.system_prompt, prompt.tiles, prompt.reading


def _digest(image: Image.Image | torch.Tensor) -> str:
    if isinstance(image, torch.Tensor):
        kind, data = f"{list(image.shape)}", image.numpy().tobytes()
    else:
        seen = as_rgb(image)  # what the MLLM sees: palettes and transparency count
        kind, data = f"{seen.size}", seen.tobytes()
    return hashlib.sha256(kind.encode() + data).hexdigest()


def _keep(kept: OrderedDict, key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
