"""Attention rules on ComfyUI's conditioning: strength, region and layout, without a MODEL socket.

The rules of an entry travel in its `model_conds`. What acts on them is a `ControlBase` in the entry's `control`:
the sampler asks it right before the model runs, and it sets `optimized_attention_override` for that call. So it
works with every loader, sampler, LoRA and ControlNet that keeps to core's ways, positive and negative run in one
call with rules of their own, and no forward is replaced.
"""

from __future__ import annotations

import math
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.conds import CONDConstant
from comfy.controlnet import ControlBase
from comfy.model_base import Flux2

from ..squeeze_core.attention.groups import Group, grouped_attention, groups
from ..squeeze_core.attention.regions import Region, boxes
from ..squeeze_core.attention.rules import AttentionRules, ReferenceRule
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.references import Reference
from ..squeeze_core.windows import ALWAYS
from . import reference_models, step_cache

KEY = "squeeze_attention"
AS_TRAINED = ReferenceRule()
MODELS = "FLUX.1, Kontext, FLUX.2, Qwen-Image-Edit, Krea 2 and Mage"


@dataclass(frozen=True)
class Heard:
    """One reference on its way into an entry: its latent, what attention is asked for it, and when it is heard."""

    latent: torch.Tensor
    rule: ReferenceRule = AS_TRAINED
    window: tuple[float, float] = ALWAYS

    @classmethod
    def of(cls, item: Reference, owner: int = 0) -> Heard:
        return cls(item.latent, item.rule(owner), item.window)


def heard_upstream(options: dict) -> list[Heard]:
    """The references that an entry has already, in order."""
    latents = options.get("reference_latents") or []
    return [Heard(latent, rule) for latent, rule in zip(latents, rules_of(options).references)]


def with_references(options: dict, heard: Sequence[Heard], words: bool = True) -> dict:
    """The options of an entry with these references in place of its own.

    words: False where the entry's text gives way to a token that is everybody's. Places stay.
    """
    rules = replace(rules_of(options), references=tuple(one.rule for one in heard))
    if not words:
        rules = replace(rules, words=())
    options = {**options, "reference_latents": [one.latent for one in heard]}
    if not heard:
        del options["reference_latents"]
    return with_rules(options, rules)


def rules_of(options: dict) -> AttentionRules:
    """The rules of an entry; one for each of its references, as trained where none is set."""
    held = options.get("model_conds", {}).get(KEY)
    rules: AttentionRules = AttentionRules() if held is None else held.cond[0][0]
    missing = len(options.get("reference_latents") or []) - len(rules.references)
    if missing < 0:
        raise SqueezeError(
            f"The conditioning has {-missing} references fewer than it has rules for. Put nothing that takes "
            "references away behind the layout."
        )
    return replace(rules, references=rules.references + (AS_TRAINED,) * missing)


def with_rules(options: dict, rules: AttentionRules) -> dict:
    """The options of an entry under these rules, and what carries them to the model."""
    options = dict(options)
    conds = {name: cond for name, cond in options.get("model_conds", {}).items() if name != KEY}
    carrier = options.get("control")
    if rules.plain and not isinstance(carrier, AttentionCarrier):
        return {**options, "model_conds": conds} if "model_conds" in options else options
    options["model_conds"] = {**conds, KEY: RulesCond(((rules, 1),))}
    options["control"] = carrier_for(carrier)
    return options


def carried(entries: list[list]) -> list[list]:
    """The same, and every entry that has references carries its rules if one of them does.

    ComfyUI runs two entries in one call only if both have the same `control`.
    """
    if not any(KEY in options.get("model_conds", {}) for _, options in entries):
        return entries
    result = []
    for tokens, options in entries:
        if options.get("reference_latents") and KEY not in options.get("model_conds", {}):
            options = {**options, "model_conds": {**options.get("model_conds", {})}}
            options["model_conds"][KEY] = RulesCond(((rules_of(options), 1),))
            options["control"] = carrier_for(options.get("control"))
        result.append([tokens, options])
    return result


def followed(parts: list[list]) -> list[list]:
    """The parts of one entry; step caches follow from each to the next. One alone stays as it is."""
    if len(parts) < 2:
        return parts
    entry = uuid.uuid4()
    return [[tokens, _followed(options, entry)] for tokens, options in parts]


def looked_at(entry: list) -> list:
    """The entry, and the first step looks at its references if it has some, see `reference_models`."""
    tokens, options = entry
    if not options.get("reference_latents"):
        return entry
    return [tokens, {**options, "control": carrier_for(options.get("control"))}]


def _followed(options: dict, entry: uuid.UUID) -> dict:
    part = step_cache.PartOf(entry, options.get("timestep_end", -math.inf))
    conds = {**options.get("model_conds", {}), step_cache.KEY: step_cache.PartCond((part,))}
    return {**options, "model_conds": conds, "control": carrier_for(options.get("control"))}


def to_save(options: dict) -> dict:
    """The options of an entry with what step caches follow as a text, for a file."""
    conds = dict(options.get("model_conds", {}))
    part = conds.pop(step_cache.KEY, None)
    if part is None:
        return options
    options = {**options, step_cache.KEY: str(part.cond[0].entry), "model_conds": conds}
    if not conds:
        del options["model_conds"]
    carrier = options.pop("control", None)
    if isinstance(carrier, AttentionCarrier):
        carrier = carrier.previous_controlnet
    return options if carrier is None else {**options, "control": carrier}


def from_file(options: dict) -> dict:
    """What `to_save` was given."""
    options = dict(options)
    entry = options.pop(step_cache.KEY, None)
    return options if entry is None else _followed(options, uuid.uuid5(uuid.NAMESPACE_OID, entry))


def region_of(mask: torch.Tensor | None, given: object = None) -> Region | None:
    """A region from a MASK or from core's boxes, None from neither. Raises `SqueezeError` for both, or for many."""
    if mask is None and given is None:
        return None
    found = () if given is None else boxes(given)
    if mask is not None and mask.ndim == 3:
        if len(mask) != 1:
            raise SqueezeError(f"The region has {len(mask)} masks. Give one.")
        mask = mask[0]
    return Region(found, mask)


class RulesCond(CONDConstant):
    """Rules in an entry's `model_conds`: (rules, batch) of each entry that runs in one call."""

    def __init__(self, cond: tuple[tuple[AttentionRules, int], ...]):
        super().__init__(cond)

    def process_cond(self, batch_size: int, **kwargs) -> RulesCond:
        return self._copy_with(tuple((rules, batch_size) for rules, _ in self.cond))

    def can_concat(self, other: RulesCond) -> bool:
        return True

    def concat(self, others: Sequence[RulesCond]) -> tuple[tuple[AttentionRules, int], ...]:
        return sum((other.cond for other in others), self.cond)


# One carrier for each ControlNet that it comes before, so that both sides of CFG hold the same object.
_carriers: weakref.WeakValueDictionary[int, AttentionCarrier] = weakref.WeakValueDictionary()


def carrier_for(previous: ControlBase | None) -> AttentionCarrier:
    """The carrier that calls `previous`, an entry's ControlNet, or None. A carrier stays as it is."""
    if isinstance(previous, AttentionCarrier):
        return previous
    carrier = _carriers.get(id(previous))
    if carrier is None:
        carrier = _carriers[id(previous)] = AttentionCarrier(previous)
    return carrier


class AttentionCarrier(ControlBase):
    """Sets the attention override for each call of the model whose entries have rules, and guides step caches.

    Raises `SqueezeError` for a model on which the rules cannot work, and when a model ignores the override.
    """

    def __init__(self, previous: ControlBase | None = None):
        super().__init__()
        self.previous_controlnet = previous
        self._reset(None)

    def _reset(self, model: Any) -> None:
        self.model = model
        self.asked = self.heard = False
        self.said: set[str] = set()
        self.parts: dict[tuple, tuple[AttentionRules, tuple[Group, ...]]] = {}

    def pre_run(self, model, percent_to_timestep_function) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self._reset(model)

    def cleanup(self) -> None:
        super().cleanup()
        try:
            self._check_heard()
        finally:
            self._reset(None)

    def copy(self) -> AttentionCarrier:
        made = AttentionCarrier(self.previous_controlnet)
        self.copy_to(made)
        return made

    def deepclone_multigpu(self, load_device, autoregister: bool = False) -> AttentionCarrier:
        made = AttentionCarrier()
        if autoregister:
            self.multigpu_clones[load_device] = made
        return made

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        step_cache.follow(transformer_options, cond.pop(step_cache.KEY, ()))
        entries = cond.pop(KEY, ())
        reference_models.prepare(self.model, cond, self.said)
        earlier = transformer_options.get("optimized_attention_override")
        if isinstance(earlier, Override):  # of the call before, where options are kept
            earlier = earlier.earlier
        if any(not rules.plain for rules, _ in entries):
            self._check_heard()
            self.asked = True
            there = TokenLayout.of(self.model, x_noisy, cond)
            transformer_options["optimized_attention_override"] = Override(self, entries, there, earlier)
        elif earlier is None:
            transformer_options.pop("optimized_attention_override", None)
        else:
            transformer_options["optimized_attention_override"] = earlier
        if self.previous_controlnet is None:
            return None
        return self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)

    def _check_heard(self) -> None:
        if self.asked and not self.heard:
            raise SqueezeError(
                "This model was loaded in a way that ignores ComfyUI's attention override (as Nunchaku's is), "
                "so a reference's strength or region, or a layout, would do nothing. Load it with ComfyUI's "
                "own loader or as GGUF, or remove them."
            )


@dataclass(frozen=True)
class TokenLayout:
    """What a call's sequence is made of: rows and columns of the picture, and pixels a token.

    words: how many, where known. padded: whether some of them are padding on the left.
    """

    rows: int
    columns: int
    pixels: int
    words: int | None
    padded: bool

    @classmethod
    def of(cls, model: Any, latents: torch.Tensor, cond: dict) -> TokenLayout:
        net = getattr(model, "diffusion_model", None)
        patch = getattr(net, "patch_size", getattr(net, "patch", None))
        patch = patch[-1] if isinstance(patch, tuple | list) else patch
        frames = latents.shape[2] if latents.ndim == 5 else 1
        if not isinstance(patch, int) or latents.ndim not in (4, 5) or frames != 1:
            raise SqueezeError(_cannot(net))
        rows, columns = (math.ceil(side / patch) for side in latents.shape[-2:])
        words = cond.get("c_crossattn")
        pixels = patch * model.latent_format.spacial_downscale_ratio
        return cls(rows, columns, pixels, None if words is None else words.shape[1], isinstance(model, Flux2))


def _cannot(net: Any) -> str:
    return (
        f"A strength, a region or a layout cannot work on {type(net).__name__}: it does not say where its words, "
        f"its picture and its references lie in attention. They work on {MODELS}."
    )


class Override:
    """`optimized_attention_override` of one call of the model: attention under the entries' rules."""

    def __init__(
        self,
        carrier: AttentionCarrier,
        entries: Sequence[tuple[AttentionRules, int]],
        there: TokenLayout,
        earlier: Callable | None,
    ):
        self.carrier, self.entries, self.there, self.earlier = carrier, entries, there, earlier

    def __call__(
        self,
        function: Callable,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        mask: torch.Tensor | None = None,
        attn_precision: torch.dtype | None = None,
        skip_reshape: bool = False,
        skip_output_reshape: bool = False,
        **kwargs,
    ) -> torch.Tensor:
        """Of `attention.wrap_attn`: the call that the model makes, in the function that the user chose."""

        def attend(q, k, v, added):
            inner = (
                function if self.earlier is None else lambda *args, **more: self.earlier(function, *args, **more)
            )
            return inner(
                q,
                k,
                v,
                heads,
                mask=added,
                attn_precision=attn_precision,
                skip_reshape=skip_reshape,
                skip_output_reshape=skip_output_reshape,
                **kwargs,
            )

        dim = 2 if skip_reshape else 1
        options = kwargs.get("transformer_options") or {}
        if "block_index" not in options or q.shape[dim] != k.shape[dim]:
            return attend(q, k, v, mask)
        self.carrier.heard = True
        own = None if mask is None else _as_bias(mask, q, q.shape[dim])
        references = options.get("reference_image_num_tokens") or ()
        done, start = [], 0
        for rules, batch in self._runs(q.shape[0]):
            rows = slice(start, start + batch)
            start += batch
            parts = self._parts(rules, q, q.shape[dim], references)
            done.append(
                grouped_attention(
                    q[rows],
                    k[rows],
                    v[rows],
                    parts,
                    attend,
                    mask=own if own is None or len(own) == 1 else own[rows],
                    dim=dim,
                    out_dim=2 if skip_output_reshape else 1,
                )
            )
        return done[0] if len(done) == 1 else torch.cat(done)

    def _runs(self, batch: int) -> list[tuple[AttentionRules, int]]:
        """(rules, batch), neighbours of equal rules joined."""
        if sum(count for _, count in self.entries) != batch:
            raise SqueezeError(_cannot(getattr(self.carrier.model, "diffusion_model", None)))
        runs: list[tuple[AttentionRules, int]] = []
        for rules, count in self.entries:
            if runs and runs[-1][0] == rules:
                runs[-1] = (rules, runs[-1][1] + count)
            else:
                runs.append((rules, count))
        return runs

    def _parts(
        self, rules: AttentionRules, q: torch.Tensor, tokens: int, references: Sequence[int]
    ) -> tuple[Group, ...]:
        there = self.there
        key = (id(rules), there, tokens, tuple(references), q.device, q.dtype)
        if key not in self.carrier.parts:
            words = tokens - there.rows * there.columns - sum(references)
            if words < 1 or there.words not in (None, words) or len(references) != len(rules.references):
                raise SqueezeError(_cannot(getattr(self.carrier.model, "diffusion_model", None)))
            seen = rules.visibility(words, (there.rows, there.columns), references, there.pixels, there.padded)
            parts = tuple(part.to(q.device, q.dtype) for part in groups(seen))
            self.carrier.parts[key] = (rules, parts)  # the rules too, so that their id stays theirs
        return self.carrier.parts[key][1]


def _as_bias(mask: torch.Tensor, q: torch.Tensor, tokens: int) -> torch.Tensor:
    """A mask as core's models give it -> [batch or 1, heads or 1, queries or 1, keys], floats of q's dtype."""
    if mask.dtype == torch.bool:
        if mask.ndim == 2 and mask.shape[0] != tokens:  # [batch, keys]
            mask = mask[:, None]
        mask = torch.zeros(mask.shape, device=mask.device, dtype=q.dtype).masked_fill_(~mask, -math.inf)
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    return mask.to(q.dtype)
