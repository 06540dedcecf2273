"""FLUX as it learns to paint: a T5 of its own in front, and readouts behind its blocks that only training asks.

Diffusion transformers learn several times faster when blocks in the middle are asked for what a clean picture's
tokens show (Yu et al., "Representation Alignment for Generation", ICLR 2025, with a pretrained encoder's features).
Here the world itself tells it: where a token stands, which of its cells the subject covers, and who it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from ...flux.tokens import DOWNSCALE, PATCH
from .. import flux, scenes, tokenizer
from .questions import IGNORED, WHO, answers, misread

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

# Of the losses of `Painter.asked` and `Painter.misheard`, beside 1 of the picture.
WEIGHTS = {
    "misplaced": 0.3,
    "misshapen": 1.0,
    "miscoloured": 2.0,
    "mistaken": 0.3,
    "unrecognised": 0.3,
    "misheard": 0.3,
}
_ROWS = scenes.SIDE // DOWNSCALE // PATCH  # of tokens, and columns
_CELLS = 4  # a side of a token
_MASKS = 2 * _CELLS**2
_ANSWERS = [len(choices) for choices in WHO.values()]
_FAST = 14  # of an axis' dimensions: seven pairs, the slowest of which turns by 0.14 a token
_WIDTH = flux.CONFIG["num_attention_heads"] * flux.CONFIG["attention_head_dim"]
_BEFORE, _BEHIND, _LOUD = 1, 17, 6.0  # buckets of T5's 32 relative positions
_T5: dict[str, Any] = {
    "vocab_size": tokenizer.VOCABULARY,
    "d_model": flux.CONTEXT_WIDTH,
    "d_kv": 64,
    "d_ff": 2 * flux.CONTEXT_WIDTH,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "relative_attention_max_distance": 32,
}


class Painter(nn.Module):
    """FLUX, the text encoder in front of it, and what is asked of its blocks while it learns.

    places: row and column of each token, behind the double blocks. A FLUX has no table of positions: a token
        learns where it stands from rotary angles to text tokens at (0, 0). Two heads in five blocks hardly find
        that out from the picture's loss alone: after 4,000 steps every shape was one round blob at pure noise.
        Asked for row and column, they tell both in 99% of the tokens after 150 steps.
    shapes: which cells of each token a subject covers, and which show its second colour, behind the last double
        block and all single blocks but the last. Within 500 steps the masks have corners.
    colours: of the cells, behind the single blocks.
    who: shape, colours and pattern of each toy, from the mean of the tokens that it covers, behind every block; in
        the picture that is painted and in those in sight. So blocks learn to recognise a toy in clean tokens, and
        to hand on who it is to where it is to stand.
    told: the same of a lone toy, from the mean of a caption's tokens behind the T5. All text tokens stand at one
        position for FLUX, so only the T5 can tell the first colour from the second, see `text_encoder`.
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text = text_encoder()
        _start(transformer)
        double, single = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
        self.places = nn.ModuleList(_readout(2 * _ROWS) for _ in double)
        self.shapes = nn.ModuleList(_readout(_MASKS) for _ in single)
        self.colours = nn.ModuleList(_readout(3 * _CELLS**2) for _ in single)
        self.who = nn.ModuleList(_readout(sum(_ANSWERS)) for _ in (*double, *single))
        self.told = _readout(sum(_ANSWERS))
        self._said: dict[int, torch.Tensor] = {}
        for number, block in enumerate([*double, *single]):
            block.register_forward_hook(partial(self._hear, number))

    def _hear(self, number: int, block: nn.Module, given: Any, made: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._said[number] = made[1]  # the picture's tokens

    def asked(self, truth: torch.Tensor, who: torch.Tensor, covered: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of the last pictures' readouts, means over tokens and blocks: cross-entropies, mean squares.

        truth: [b, tokens, features] of the picture that is painted, see `shown`. who: [b, pictures, toys,
        questions] and covered: [b, pictures, toys, tokens], of it and those in sight, see `whereabouts`.
        """
        heard = [self._said[number].unflatten(1, (-1, _ROWS**2)) for number in sorted(self._said)]
        self._said.clear()
        said = [tokens[:, 0] for tokens in heard]
        toys = [covered @ tokens for tokens in heard]  # [b, pictures, toys, width]
        doubles = len(self.places)
        tokens = torch.cartesian_prod(torch.arange(_ROWS), torch.arange(_ROWS))
        where = tokens.to(truth.device).expand(len(truth), -1, -1).flatten()
        masks, colours = truth.split([_MASKS, 3 * _CELLS**2], -1)
        losses = {
            "misplaced": [
                F.cross_entropy(readout(heard).unflatten(-1, (2, _ROWS)).flatten(0, 2), where)
                for readout, heard in zip(self.places, said)
            ],
            "misshapen": [
                F.binary_cross_entropy_with_logits(readout(heard), masks)
                for readout, heard in zip(self.shapes, said[doubles - 1 :])
            ],
            "miscoloured": [
                F.mse_loss(readout(heard), colours) for readout, heard in zip(self.colours, said[doubles:])
            ],
            "mistaken": [_mistaken(readout(heard[:, 0]), who[:, 0]) for readout, heard in zip(self.who, toys)],
        }
        if who.shape[1] > 1:
            losses["unrecognised"] = [
                _mistaken(readout(heard[:, 1:]), who[:, 1:]) for readout, heard in zip(self.who, toys)
            ]
        return {name: torch.stack(each).mean() for name, each in losses.items()}

    def misheard(
        self, context: torch.Tensor, present: torch.Tensor, who: torch.Tensor, untold: Sequence[bool]
    ) -> torch.Tensor:
        """Cross-entropy of what captions tell of who is painted, mean over those that tell it; 0 if none does.

        context: [b, tokens, width] of the T5, zero where padded. present: [b, tokens], which are not.
        who: [b, toys, questions] of the picture, whose caption is asked if it shows one. untold: texts in which it
        is not told.
        """
        several = (who[:, 1:, 0] != IGNORED).any(1)
        asked = who[:, 0].masked_fill((several | torch.tensor(untold, device=who.device))[:, None], IGNORED)
        return _mistaken(self.told(context.sum(1) / present.sum(1, keepdim=True)), asked)


def _mistaken(answers: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
    return misread(answers.flatten(0, -2).split(_ANSWERS, -1), who.flatten(0, -2))


def whereabouts(scene: scenes.Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Who is in a picture, [toys, questions] int64, and what of each token it covers, [toys, tokens] summing to 1.

    Always as many toys as a scene can have. `questions.IGNORED` and zeros for those that are not there, and for
    what a toy carries when it is shown alone.
    """
    who = torch.full((scenes.MOST_SUBJECTS, len(WHO)), IGNORED)
    covered = torch.zeros(scenes.MOST_SUBJECTS, _ROWS**2)
    for i, subject in enumerate(scene.subjects):
        alone = replace(scene, subjects=(replace(subject, carries=None),))
        who[i] = torch.tensor(answers(alone)[: len(WHO)])
        covers = torch.from_numpy(scenes.masks(alone, _ROWS, _CELLS)[0]).flatten()
        covered[i] = covers / covers.sum()
    return who, covered


def shown(scene: scenes.Scene) -> torch.Tensor:
    """What the tokens of a clean picture show: [tokens, features], float16.

    Of each cell of a token the share that is covered, the share of a second colour, and the mean colour, -1 to 1.
    """
    side = _ROWS * _CELLS
    picture = torch.from_numpy(scenes.render(scene)).permute(2, 0, 1) / 127.5 - 1
    planes = torch.cat([torch.from_numpy(scenes.masks(scene, side)), F.adaptive_avg_pool2d(picture, side)])
    parts = planes.unflatten(1, (_ROWS, _CELLS)).unflatten(3, (_ROWS, _CELLS))  # [5, rows, cells, columns, cells]
    return parts.permute(1, 3, 0, 2, 4).flatten(0, 1).flatten(1).half()


def text_encoder() -> nn.Module:
    """A tiny T5 of random weights: ids [b, tokens] -> states as wide as FLUX's context.

    One head begins at the token before, one at the token behind. With T5's own small biases attention settles on
    what tokens say before it finds where they stand, and hardens: after 12,600 steps "red and blue" and "blue and
    red" gave every word the same state. Begun so, the order of two colours is read from it after 120 steps of 16.
    """
    from transformers import T5Config, T5EncoderModel

    encoder = T5EncoderModel(T5Config(**_T5))
    biases = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        for head, bucket in enumerate((_BEFORE, _BEHIND)):
            biases[bucket, head] += _LOUD
    return encoder


def _readout(answers: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, answers))


@torch.no_grad()
def _start(transformer: FluxTransformer2DModel) -> None:
    """As diffusion transformers are begun: modulations and the last layer at zero."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            if (
                name.endswith(("norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear"))
                or name == "proj_out"
            ):
                nn.init.zeros_(module.weight)
            elif name.startswith("time_text_embed"):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith(("norm_q", "norm_k", "norm_added_q", "norm_added_k")):
            # Eight rows of tokens hardly turn but the fastest pairs of each axis: these begin with a louder voice.
            index, rows, _ = flux.CONFIG["axes_dims_rope"]
            for axis in (index, index + rows):
                module.weight[axis : axis + _FAST] = 2.0
