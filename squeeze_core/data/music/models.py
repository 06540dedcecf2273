"""The real models of the pipeline, by transformers and diffusers, from local folders, one in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import pretrained
from ...draws import Draws
from ...errors import SqueezeError
from ...flux.conditioning import Conditioning
from ...flux.loading import torch_dtype
from ...flux.model import velocity
from ...flux.sampling import euler
from ...flux.tokens import DOWNSCALE, PATCH
from ...flux.vae import decode_latents, encode_pixels, scale_latents, unscale_latents
from ...images import to_picture, to_tensor
from ...mllm.backbone import Backbone, Prompt
from ...mllm.candidates import decode
from ...mllm.constrained import JSONGrammar, fewest_tokens
from ...planning.grid import Box
from ...references import ReferencePicture, fit
from ...sigmas import flux_mu, sigmas
from ...vision.backbones import Clip, load_clip
from ...vision.detector import Detector as VisionDetector
from ...vision.detector import load_detector
from . import answers
from .card import boxed
from .category_list import categories
from .config import MusicConfig, RealModels
from .record import Record, Subject
from .references import cut
from .roles import Judged, Role, Told

if TYPE_CHECKING:
    from PIL.Image import Image

_WORDS = 400  # tokens of an answer's texts
_VIEW = "a photo of the {name}, seen from another side, alone, on a plain background"


# What the paper names, by role.
FETCH = {
    role: f"hf download {name} --local-dir models/{name.partition('/')[2]}"
    for role, name in {
        "writer": "Qwen/Qwen3-8B",
        "painter": "black-forest-labs/FLUX.1-dev",
        "lora": "bytedance-research/UNO",
        "detector": "IDEA-Research/grounding-dino-base",
        "judge": "Qwen/Qwen2.5-VL-7B-Instruct",
        "segmenter": "facebook/sam2.1-hiera-large",
        "likeness": "openai/clip-vit-large-patch14",
    }.items()
}


class RealRoles:
    """Of a config with `RealModels`. A role that the model in memory has too takes it. Raises `SqueezeError` for a
    model that is not there, before the first stage."""

    def __init__(self, config: MusicConfig) -> None:
        assert isinstance(config.models, RealModels)
        self.config, self.paths = config, config.models
        for role, fetch in FETCH.items():
            path = Path(getattr(self.paths, role)).expanduser()
            if not path.exists():
                raise SqueezeError(f'There is no {role} at "{path}". Set models.{role}, or fetch it: {fetch}')
        self._held: tuple[str, Any] | None = None

    def names(self) -> Sequence[str]:
        return categories(self.config.categories)

    def model(self, role: Role) -> Any:
        if role == "none":
            return None
        kind = "painter" if role == "redrawer" else role
        if self._held is None or self._held[0] != kind:
            self._held = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._held = kind, self._load(kind)
        return self._held[1]

    def described(self) -> dict[str, str]:
        return {
            role: Path(path).name for role, path in self.paths.model_dump(exclude={"dtype", "judge_dtype"}).items()
        }

    def _load(self, kind: str) -> Any:
        from ...mllm.loading import load as load_mllm

        device, paths = _device(), self.paths
        match kind:
            case "writer":
                return LanguageModel.load(paths.writer, self.config.seed, device)
            case "painter":
                return FluxPainter.load(self.config, device)
            case "detector":
                return GroundingDetector(load_detector(paths.detector, device))
            case "judge":
                backbone = load_mllm(paths.judge, paths.judge_dtype, device=device)
                return VisionJudge(backbone, self.config.seed)
            case "segmenter":
                return Sam2(paths.segmenter, load_clip(paths.likeness, device), device)
        raise SqueezeError(f'There is no model for "{kind}".')


class LanguageModel:
    """An LLM with a chat template, Qwen3 without its thinking; answers are constrained JSON."""

    def __init__(self, model: Any, tokenizer: Any, seed: int) -> None:
        self.model, self.tokenizer, self.draws = model, tokenizer, Draws(seed)
        ends = model.generation_config.eos_token_id
        known = ends if isinstance(ends, list) else [ends]
        self._ends = [end for end in (*known, tokenizer.eos_token_id) if end is not None]
        self._grammar = JSONGrammar(tokenizer, model.config.vocab_size, self._ends)

    @classmethod
    def load(cls, folder: str, seed: int, device: torch.device) -> LanguageModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        advice = "Give the folder of an LLM: hf download Qwen/Qwen3-8B --local-dir models/Qwen3-8B"
        path = Path(folder).expanduser()
        tokenizer = pretrained.load(AutoTokenizer, path, advice)
        if not tokenizer.chat_template:
            raise SqueezeError(f'"{path}" has no chat template, so it is no model that answers. {advice}')
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return cls(pretrained.load(AutoModelForCausalLM, path, advice, dtype=dtype).to(device), tokenizer, seed)

    def categories(self, record: Record, candidates: Sequence[str], fewest: int, most: int) -> list[str]:
        import json

        # How many is drawn: an LLM likes some numbers better than others.
        count = fewest + self.draws.integer("subjects", record.number, most - fewest + 1)
        words = answers.CATEGORIES.format(fewest=fewest, most=count, names=", ".join(candidates))
        answer = self._answer(words, answers.categories_schema(candidates, fewest, count), "categories", record)
        return list(dict.fromkeys(json.loads(answer)["names"]))

    def caption(self, record: Record) -> str:
        import json

        words = answers.CAPTION_TASK.format(names=", ".join(record.names))
        return json.loads(self._answer(words, answers.caption_schema(), "caption", record))["caption"]

    @torch.inference_mode()
    def _answer(self, words: str, schema: dict[str, Any], purpose: str, record: Record) -> str:
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": words}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        encoded = self.tokenizer(text, return_tensors="pt").to(self.model.device)
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        reserve = fewest_tokens(schema)
        (tokens,) = decode(
            self.model,
            inputs,
            self._grammar.answers(schema, 1),
            [self.draws.integer(purpose, record.number, 2**62)],
            limit=reserve + _WORDS,
            reserve=reserve,
            temperature=0.7,
            top_k=20,
            top_p=0.8,
            end=self._ends[0],
        )
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


class FluxPainter:
    """FLUX.1 with its encoders: targets without, other views with UNO's LoRA and the crop as reference tokens."""

    def __init__(self, pipe: Any, config: MusicConfig) -> None:
        self.pipe, self.config, self.draws = pipe, config, Draws(config.seed)

    @classmethod
    def load(cls, config: MusicConfig, device: torch.device) -> FluxPainter:
        from diffusers import FluxPipeline

        assert isinstance(config.models, RealModels)
        folder, lora = Path(config.models.painter).expanduser(), Path(config.models.lora).expanduser()
        if not lora.is_file():
            raise SqueezeError(f'There is no LoRA at "{lora}". Fetch UNO\'s: hf download bytedance-research/UNO')
        try:
            dtype = torch_dtype(config.models.dtype) or torch.bfloat16
            pipe = FluxPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True).to(device)
            pipe.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="views")
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise SqueezeError(
                f'"{folder}" with "{lora.name}" cannot be loaded ({reason}). Give FLUX.1-dev, a diffusers folder: '
                "hf download black-forest-labs/FLUX.1-dev --local-dir models/FLUX.1-dev"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        return cls(pipe, config)

    @torch.inference_mode()
    def paint(self, records: Sequence[Record]) -> list[Image]:
        self.pipe.disable_lora()
        return self.pipe(
            prompt=[record.caption for record in records],
            height=self.config.resolution,
            width=self.config.resolution,
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            generator=[torch.Generator().manual_seed(self._seed("target", record)) for record in records],
        ).images

    @torch.inference_mode()
    def redraw(self, records: Sequence[Record], subjects: Sequence[Subject], crops: Sequence[Image]) -> list[Image]:
        self.pipe.enable_lora()
        return [self._view(record, subject, crop) for record, subject, crop in zip(records, subjects, crops)]

    def _view(self, record: Record, subject: Subject, crop: Image) -> Image:
        pipe, side = self.pipe, self.config.reference_side
        transformer, vae, device = pipe.transformer, pipe.vae, pipe.transformer.device
        context, pooled, _ = pipe.encode_prompt(_VIEW.format(name=subject.name), None, device=device)
        pixels = fit(ReferencePicture(to_tensor(crop), long_side=side), side)
        reference = scale_latents(vae, encode_pixels(vae, pixels, device))
        heard = Conditioning(context, pooled, self.config.guidance, (reference,), "uxo")
        shape = (1, vae.config.latent_channels, side // DOWNSCALE, side // DOWNSCALE)
        noise = self.draws.normal(f"view of {subject.name}", record.number, shape).to(device)
        levels = sigmas("flux", self.config.steps, mu=flux_mu((side // DOWNSCALE // PATCH) ** 2)).to(device)
        made = euler(lambda step, latents: velocity(transformer, latents, levels[step], heard), noise, levels)
        return to_picture(decode_latents(vae, unscale_latents(vae, made), device)[0].cpu())

    def _seed(self, purpose: str, record: Record) -> int:
        return self.draws.integer(purpose, record.number, 2**62)


class GroundingDetector:
    def __init__(self, detector: VisionDetector) -> None:
        self.detector = detector

    def find(self, record: Record, picture: Image, name: str) -> list[Box]:
        width, height = picture.size
        return [
            Box(each.left / width, each.top / height, each.width / width, each.height / height)
            for each in self.detector.detect(picture, name)
        ]


class VisionJudge:
    def __init__(self, backbone: Backbone, seed: int) -> None:
        self.backbone, self.draws = backbone, Draws(seed)

    def verify(self, record: Record, picture: Image, subject: Subject) -> Judged:
        def asked(words: str, shown: Image, schema: dict[str, Any]) -> str:
            prompt = Prompt(words.format(name=subject.name), (shown,), tiles=4)
            return self.backbone.generate_json(prompt, schema, words=1)[0]

        same = asked(answers.SAME, cut(picture, subject), answers.same_schema())
        return answers.judged(same, asked(answers.COUNT, picture, answers.count_schema()))

    def tell(self, record: Record, picture: Image) -> Told:
        names = ", ".join(f"{number} {subject.name}" for number, subject in enumerate(record.subjects, start=1))
        count = len(record.subjects)
        words = answers.TELL.format(count=count, names=names, first=record.subjects[0].name)
        answer = self.backbone.generate_json(
            Prompt(words, (boxed(picture, record),), tiles=4),
            answers.told_schema(count),
            seeds=[self.draws.integer("told", record.number, 2**62)],
            words=_WORDS + 60 * count,
            temperature=0.7,
        )[0]
        return answers.told(answer)


class Sam2:
    """SAM2's mask of a box; CLIP chooses between what the mask and what the box shows."""

    def __init__(self, folder: str, clip: Clip, device: torch.device) -> None:
        from transformers import Sam2Model, Sam2Processor

        advice = "Give SAM2's folder: hf download facebook/sam2.1-hiera-large --local-dir models/sam2.1-hiera-large"
        path = Path(folder).expanduser()
        self.processor = pretrained.load(Sam2Processor, path, advice)
        self.model = pretrained.load(Sam2Model, path, advice).to(device)
        self.clip, self.device = clip, device

    @torch.inference_mode()
    def mask(self, record: Record, picture: Image, subject: Subject) -> torch.Tensor:
        box, (width, height) = subject.place, picture.size
        corners = [box.left * width, box.top * height, box.right * width, box.bottom * height]
        inputs = self.processor(images=picture, input_boxes=[[corners]], return_tensors="pt").to(self.device)
        outputs = self.model(**inputs, multimask_output=False)
        return (
            self.processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"].cpu())[0][0, 0] > 0
        )

    def prefers(self, record: Record, picture: Image, subject: Subject, mask: torch.Tensor) -> bool:
        """Sim_mask > Sim_unmask (section 3.3). A mask that hides nothing in the box is the box, and not better."""
        from PIL import Image as pil

        alone = pil.composite(picture, pil.new("RGB", picture.size, "white"), pil.fromarray(mask.numpy()))
        pictures = [cut(alone, subject), cut(picture, subject)]
        if pictures[0].tobytes() == pictures[1].tobytes():
            return False  # two rows of one batch may differ in their last bit
        seen = self.clip.encode(pictures)
        words = self.clip.encode_texts([f"a photo of a {subject.name}"])
        masked, whole = (seen @ words.T)[:, 0].tolist()
        return masked > whole


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
