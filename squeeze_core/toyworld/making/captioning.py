"""The tiny InternVL learns to read toy pictures: to describe them, and to say who a prompt speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...draws import Draws
from ...mllm.backbone import Prompt
from ...mllm.prompt import chat_text
from ...training.task import Task
from .. import language, mllm, scenes
from .questions import IGNORED, WHERE, WHO, answers, misread
from .settings import MLLMSettings

if TYPE_CHECKING:
    from PIL.Image import Image

DESCRIBE = "Describe the picture."
_PICTURE = f"<img>{'<IMG_CONTEXT>' * mllm.IMAGE_TOKENS}</img>\n"  # as `InternVL.pictures` writes one tile
_PAD = "<|endoftext|>"
_SEEN = 0.5  # weight of the loss on what the picture's tokens tell


class Reader(nn.Module):
    """The MLLM, and what is asked of its picture tokens while it learns.

    A vision tower that learns from captions alone finds colours within 3,000 steps and hardly a shape (41%).
    The real one learned to see before it met language; this one is asked, by linear readouts of the mean of a
    picture's tokens, for what every picture of one subject shows.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.mllm = model
        self.questions = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(mllm.HIDDEN), nn.Linear(mllm.HIDDEN, len(choices)))
                for name, choices in (WHO | WHERE).items()
            }
        )
        self._tokens: torch.Tensor | None = None
        model.model.multi_modal_projector.register_forward_hook(self._hear)  # type: ignore[union-attr,arg-type]

    def _hear(self, projector: nn.Module, given: Any, made: torch.Tensor) -> None:
        self._tokens = made  # [pictures, tokens, width]

    def misread(self, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the answers on the last pictures, and the share of shapes that are right.

        truth: [pictures, questions], numbers of the answers; a row of -100 for a picture that is not asked of.
        """
        assert self._tokens is not None
        mean = self._tokens.float().mean(1)
        self._tokens = None
        guesses = [readout(mean) for readout in self.questions.values()]
        asked = (truth[:, 0] != IGNORED).sum().clamp(min=1)
        return misread(guesses, truth), (guesses[0].argmax(-1) == truth[:, 0]).sum() / asked


class CaptioningTask(Task):
    """Next-token loss on captions: of a picture to describe, or of the picture that a prompt asks for.

    The second kind answers "a photo of the toy, at sunset" with a reference in sight by the full caption
    "a photo of a red and blue striped star, at sunset", so its states must hold who the toy is. Prompts are
    worded as `encode` words them.

    folder: an InternVL folder, such as the untrained toy world's.
    """

    module: Reader

    def __init__(self, settings: MLLMSettings, folder: Path) -> None:
        from transformers import AutoTokenizer, InternVLForConditionalGeneration

        self.settings = settings
        self.draws = Draws(settings.seed)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = InternVLForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        _start(model, settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.draws.integer("initial weights", 0, 2**62))
            self.module = Reader(model)

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """ids, weights [b, longest], pixels [pictures, 3, side, side] uint8 at the world's own size, truth."""
        asked = [self._asked(index) for index in indices]
        rows = [self._tokens(prompt, answer) for prompt, answer, _ in asked]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), mllm.token_id(_PAD))
        weights = torch.zeros(len(rows), longest)
        for row, (tokens, weight) in enumerate(rows):
            ids[row, : len(tokens)], weights[row, : len(tokens)] = torch.tensor(tokens), torch.tensor(weight)
        shown = [scene for _, _, references in asked for scene in references]
        pixels = torch.from_numpy(np.stack([scenes.render(scene) for scene in shown])).permute(0, 3, 1, 2)
        truth = torch.tensor([answers(scene) for scene in shown])
        return {"ids": ids, "weights": weights, "pixels": pixels, "truth": truth}

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        ids, weights = batch["ids"].to(self.device), batch["weights"].to(self.device)
        logits = self.module.mllm(
            input_ids=ids,
            # Padding stands behind the text, where a causal model's text never looks.
            attention_mask=torch.ones_like(ids),
            pixel_values=pixel_values(batch["pixels"].to(self.device)),
            use_cache=False,
        ).logits[:, :-1]
        targets, weights = ids[:, 1:], weights[:, 1:]
        errors = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        answers = weights == 1
        right = (logits.argmax(-1) == targets)[answers].float().mean()
        answered = errors.view_as(weights)[answers].mean()
        said = (errors * weights.flatten()).sum() / weights.sum()
        misread, shapes = self.module.misread(batch["truth"].to(self.device))
        numbers = {"answer_loss": float(answered.detach()), "right_tokens": float(right)}
        numbers |= {"misread": float(misread.detach()), "right_shapes": float(shapes)}
        return said + _SEEN * misread, numbers

    @torch.no_grad()
    def sample(self, step: int) -> dict[str, Image]:
        """Six pictures that are not trained on, with what the model reads in them and what they show."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", (900, 6 * scenes.SIDE), "white")
        draw = ImageDraw.Draw(sheet)
        for row in range(6):
            one = scenes.single(self.settings.seed + 1, row, self.settings.world())
            picture = scenes.render(one.scene)
            sheet.paste(Image.fromarray(picture), (0, row * scenes.SIDE))
            lines = f"{one.caption}\n\n{self.described(picture)}"
            draw.multiline_text((scenes.SIDE + 12, row * scenes.SIDE + 30), lines, fill="black")
        return {"pictures": sheet}

    @torch.no_grad()
    def described(self, picture: np.ndarray) -> str:
        """The likeliest answer to "Describe the picture." picture: [128, 128, 3] uint8."""
        head = self.tokenizer(chat_text(Prompt(DESCRIBE), [_PICTURE]), return_tensors="pt")["input_ids"]
        made = self.module.mllm.generate(  # type: ignore[operator]
            input_ids=head.to(self.device),
            attention_mask=torch.ones_like(head).to(self.device),
            pixel_values=pixel_values(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(self.device)),
            max_new_tokens=60,
            do_sample=False,
            eos_token_id=mllm.token_id("<|im_end|>"),
            pad_token_id=mllm.token_id(_PAD),
        )
        return self.tokenizer.decode(made[0, head.shape[1] :], skip_special_tokens=True)

    def identity(self) -> dict[str, Any]:
        return self.settings.task_identity()

    def _asked(self, index: int) -> tuple[str, str, list[scenes.Scene]]:
        """Prompt, answer and what the pictures show, of a sample."""
        settings, options = self.settings, self.settings.world()
        if self.draws.chance("describe", index, settings.describe):
            one = scenes.single(settings.seed, index, options)
            return DESCRIBE, one.caption, [one.scene]
        pair = scenes.pair(settings.seed, index, options)
        answer = language.caption(pair.target, pair.told)
        return pair.prompt, answer, list(pair.references)

    def _tokens(self, prompt: str, answer: str) -> tuple[list[int], list[float]]:
        pictures = [_PICTURE] * max(1, prompt.count("of picture "))
        head = self.tokenizer(chat_text(Prompt(prompt), pictures))["input_ids"]
        tail = self.tokenizer(f"{answer}<|im_end|>")["input_ids"]
        image = mllm.CONFIG["image_token_id"]
        weights = [0.0 if token == image else self.settings.asked for token in head]
        return head + tail, weights + [1.0] * len(tail)


def pixel_values(pictures: torch.Tensor) -> torch.Tensor:
    """[n, 3, 128, 128] uint8 -> what the image processor makes of them: [n, 3, 224, 224], normalised."""
    side = (mllm.IMAGE_SIZE, mllm.IMAGE_SIZE)
    sized = F.interpolate(pictures.float(), side, mode="bicubic", antialias=True, align_corners=False)
    mean, std = (
        torch.tensor(mllm.PIXELS[f"image_{name}"], device=pictures.device)[:, None, None]
        for name in ("mean", "std")
    )
    return (sized.round().clamp(0, 255) / 255 - mean) / std


@torch.no_grad()
def _start(module: nn.Module, seed: int) -> None:
    """Small weights to train from; the untrained toy world's are made to look busy."""
    from ..seeding import fill

    fill(module, seed, ((r"embed_tokens", 0.02 * mllm.HIDDEN**0.5), (r"(cls_token|position_embeddings)", 0.3)))
    layers = mllm.LAYERS
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_((2 * layers) ** -0.5)  # the depth's sum stays small
        elif "norm" in name and parameter.ndim == 1:
            parameter.fill_(1.0)
