"""Several answers to one prompt: it is read once, its keys and values are shared, then all go on side by side."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .backbone import Progress
from .constrained import JSONAnswer


def decode(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    answers: Sequence[JSONAnswer],
    seeds: Sequence[int],
    *,
    limit: int,
    reserve: int,
    temperature: float,
    top_k: int,
    top_p: float,
    end: int,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The tokens of each answer, in the order of `answers`.

    inputs: of one prompt, [1, tokens]. seeds: one for each answer; the same seeds give the same answers. limit:
    most tokens of an answer. reserve: when so few are left, open texts and lists are closed. end: stands for
    an answer that is over while others go on. progress: called with (tokens, limit); may raise.
    """
    rows, device = len(answers), inputs["input_ids"].device
    random = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    written: list[list[int]] = [[] for _ in answers]
    over = [False] * rows
    read = model(**inputs, use_cache=True, logits_to_keep=1)
    cache = read.past_key_values
    if rows > 1:
        cache.batch_repeat_interleave(rows)
    logits = read.logits[:, -1].expand(rows, -1)
    takes_position = "cache_position" in inspect.signature(model.forward).parameters  # before transformers 5
    length = inputs["input_ids"].shape[1]
    for step in range(limit):
        scores = logits.float().cpu()
        tokens = []
        for row, answer in enumerate(answers):
            over[row] = over[row] or answer.complete
            if over[row]:
                tokens.append(end)
                continue
            allowed = answer.allowed(closing=limit - step <= reserve)
            token = _drawn(scores[row].masked_fill(~allowed, -torch.inf), temperature, top_k, top_p, random[row])
            answer.add(token)
            written[row].append(token)
            tokens.append(token)
        if progress is not None:
            progress(step + 1, limit)
        if all(done or answer.complete for done, answer in zip(over, answers)):
            break
        more: dict[str, Any] = (
            {"cache_position": torch.tensor([length + step], device=device)} if takes_position else {}
        )
        logits = model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits[:, -1]
    return written


def _drawn(scores: torch.Tensor, temperature: float, top_k: int, top_p: float, random: torch.Generator) -> int:
    """One token of [vocabulary] scores: the likeliest at temperature 0, else drawn as transformers does it."""
    if temperature == 0:
        return int(scores.argmax())
    best, tokens = (scores / temperature).topk(min(top_k, len(scores)))
    chances = best.softmax(-1)
    chances[chances.cumsum(-1) - chances >= top_p] = 0
    return int(tokens[torch.multinomial(chances, 1, generator=random)])
