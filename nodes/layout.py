"""Who stands where: subjects with words, references and a place, and the conditioning that keeps them apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..squeeze_core.attention.regions import PixelBox, Region, boxes
from ..squeeze_core.attention.rules import MAX_SUBJECTS, AttentionRules, Layout
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.references import References
from ..squeeze_core.windows import Part, parts
from .attention import KEY, Heard, carried, heard_upstream, region_of, with_rules
from .gate import PERCENT_OPTIONS
from .sockets import CATEGORY, Plans, ReferenceLatents, Subjects, boxes_input

if TYPE_CHECKING:
    from ..squeeze_core.planning.plan import ScenePlan

Entry = list  # [tokens, options], as ComfyUI has it
RANGES = ("timestep_start", "timestep_end", *PERCENT_OPTIONS)


@dataclass(frozen=True)
class Subject:
    """What SQUEEZE_SUBJECTS holds, in order: the later, the nearer to the viewer.

    entry: the conditioning of this subject alone. place: None until a plan or boxes give it.
    """

    name: str
    entry: Entry
    references: References | None = None
    place: Region | None = None


class SubjectNode(io.ComfyNode):
    """One subject of a picture of several, chainable."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeSubject",
            display_name="Subject",
            category=CATEGORY,
            description="One of several subjects: the words of this one alone, its reference pictures, and where "
            "it stands. Chain one node for each, then Apply Layout.",
            search_aliases=["regional prompt", "multi subject", "two characters", "bounding box", "layout"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="This subject alone, in the scene and with its place: 'a photo of a red bear, on the "
                    "left, on a beach'. From Aggregate or any text encoder.",
                ),
                io.String.Input(
                    "name", default="", tooltip="For messages and pictures of the plan. Empty: its number."
                ),
                ReferenceLatents.Input(
                    "references",
                    optional=True,
                    tooltip="Pictures of this subject, from Reference Tokens. For several subjects give them a "
                    "long_side of 320.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="Where it stands in the new picture: white. Of any size, it spans the picture.",
                ),
                boxes_input(
                    "box",
                    tooltip="The same as a box in pixels of the new picture, from Create Bounding Boxes. Several "
                    "together are one place.",
                ),
                Subjects.Input(
                    "subjects", optional=True, tooltip="Subjects before this one. Later ones stand in front."
                ),
            ],
            outputs=[Subjects.Output(display_name="subjects", tooltip="For Apply Layout, or the next Subject.")],
        )

    @classmethod
    def execute(cls, conditioning, name: str = "", references=None, region=None, box=None, subjects=None):
        before: tuple[Subject, ...] = subjects or ()
        name = name.strip() or f"subject {len(before) + 1}"
        if len(before) == MAX_SUBJECTS:
            raise SqueezeError(
                f'"{name}" would be subject {MAX_SUBJECTS + 1}; at most {MAX_SUBJECTS} are possible.'
            )
        made = Subject(name, _only(conditioning, name), references, region_of(region, box))
        return io.NodeOutput((*before, made))


class ApplyLayout(io.ComfyNode):
    """Subjects into one conditioning, each with its own words and references in its own place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeApplyLayout",
            display_name="Apply Layout",
            category=CATEGORY,
            description="Keeps several subjects apart: the words and references of each are seen only where it "
            "stands. Works on FLUX.1, Kontext and FLUX.2, with or without an adapter. No MODEL needed.",
            search_aliases=[
                "regional prompt",
                "bounding box",
                "two characters",
                "multi subject",
                "attention couple",
            ],
            inputs=[
                Subjects.Input("subjects", tooltip="From Subject, one node for each."),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="What is for all: place, light, style. Not needed when each subject's words say it.",
                ),
                boxes_input(
                    "boxes",
                    tooltip="A place for each subject, in their order, from Create Bounding Boxes on a canvas of "
                    "the picture's size. Instead of the places that the subjects have.",
                ),
                Plans.Input(
                    "plan",
                    optional=True,
                    tooltip="The same from Plan Scene or Edit Plan: its first plan, subjects in the order of their "
                    "numbers. Not needed after Encode Plan.",
                ),
                io.Float.Input(
                    "until",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="The sigma down to which subjects are kept apart (1 is noise). 0: to the last step.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="For the Timestep Gate, or the sampler's positive."
                )
            ],
        )

    @classmethod
    def execute(cls, subjects, conditioning=None, boxes=None, plan=None, until: float = 0.0) -> io.NodeOutput:
        if boxes is not None and plan is not None:
            raise SqueezeError("There are boxes and a plan. Connect one of them: both say where subjects stand.")
        placed = subjects
        if boxes is not None:
            placed = _placed(subjects, boxes)
        elif plan is not None:
            placed = _planned(subjects, plan[0])
        return io.NodeOutput(laid_out(placed, conditioning, until))


def laid_out(subjects: tuple[Subject, ...], scene: list[Entry] | None = None, until: float = 0.0) -> list[Entry]:
    """One conditioning of all subjects: entries for each part of the way in which others are heard.

    scene: everybody's words, put in front; its pooled vector and other options are taken, else those of the first
    subject. Raises `SqueezeError`.
    """
    for number, subject in enumerate(subjects, start=1):
        if subject.place is None:
            raise SqueezeError(
                f'Subject {number}, "{subject.name}", has no place. Connect a mask or a box to its node, or boxes '
                "for all of them to Apply Layout."
            )
    entries = [(0, _only(scene, "the scene"), None)] if scene else []
    entries += [(number, subject.entry, subject.references) for number, subject in enumerate(subjects, start=1)]
    heard = [one for owner, entry, references in entries for one in _heard(owner, entry, references)]
    layout = Layout(
        tuple((owner, entry[0].shape[1]) for owner, entry, _ in entries),
        tuple((number, subject.place) for number, subject in enumerate(subjects, start=1)),
        tuple(one.rule.owner for one in heard),
        until,
    )
    tokens = _joined([entry[0] for _, entry, _ in entries])
    options = _options([entry for _, entry, _ in entries], [references for *_, references in entries])
    result = []
    for part in parts(None, [one.window for one in heard]):
        there = [heard[number] for number in part.references]
        if part.last >= 0:
            result += _until(tokens, options, there, layout, part)
    return carried(result)


def _until(tokens: torch.Tensor, options: dict, heard: list[Heard], layout: Layout, part: Part) -> list[Entry]:
    """The part above the layout's end, under it, and the part below, without."""
    end = torch.tensor(layout.until, dtype=torch.float32)
    below = float(torch.nextafter(end, torch.tensor(-math.inf)))
    bound = AttentionRules(tuple(one.rule for one in heard), layout.words, layout.places)
    free = AttentionRules(tuple(replace(one.rule, owner=0) for one in heard))
    halves = [(bound, max(part.low, float(end)) if layout.until > 0 else part.low, part.last)]
    if layout.until > 0:
        halves.append((free, part.low, min(part.last, below)))
    made = []
    for rules, first, last in halves:
        if first > last:
            continue
        mine = with_rules(
            {**options, **({"reference_latents": [one.latent for one in heard]} if heard else {})}, rules
        )
        if math.isfinite(last):
            mine["timestep_start"] = last
        if math.isfinite(first):
            mine["timestep_end"] = first
        made.append([tokens, mine])
    return made


def _heard(owner: int, entry: Entry, references: References | None) -> list[Heard]:
    """A subject's references: those of its conditioning and those given to its node."""
    upstream = [replace(one, rule=replace(one.rule, owner=owner)) for one in heard_upstream(entry[1])]
    given = () if references is None else references.items
    return upstream + [Heard.of(item, owner) for item in given if item.strength > 0]


def _only(conditioning: list[Entry], name: str) -> Entry:
    """The one entry of a conditioning. Raises `SqueezeError` for several, for a time range, for no words."""
    if len(conditioning) != 1:
        raise SqueezeError(
            f"The conditioning of {name} has {len(conditioning)} entries; a layout takes one. Put Conditioning "
            "(Combine), time ranges and the gate behind Apply Layout."
        )
    tokens, options = conditioning[0]
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3 or tokens.shape[0] != 1:
        shape = list(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise SqueezeError(f"The conditioning of {name} is {shape}; a layout takes [1, tokens, width].")
    if any(name in options for name in RANGES):
        raise SqueezeError(f"The conditioning of {name} has a time range. Put the gate behind Apply Layout.")
    return [tokens, options]


def _joined(tokens: list[torch.Tensor]) -> torch.Tensor:
    widths = sorted({part.shape[-1] for part in tokens})
    if len(widths) > 1:
        raise SqueezeError(
            f"The conditionings are {' and '.join(map(str, widths))} wide. Encode the scene and all subjects by "
            "the same text encoder, or by the same adapter."
        )
    return torch.cat([part.to(tokens[0]) for part in tokens], 1)


def _options(entries: list[Entry], references: list[References | None]) -> dict:
    """Those of the first entry; masks beside the tokens joined, and where references are placed."""
    options = {name: value for name, value in entries[0][1].items() if name != "reference_latents"}
    options["model_conds"] = {name: value for name, value in options.get("model_conds", {}).items() if name != KEY}
    if any(entry[1].get("attention_mask") is not None for entry in entries):
        masks = [entry[1].get("attention_mask") for entry in entries]
        kind = next(mask for mask in masks if mask is not None)
        options["attention_mask"] = torch.cat(
            [
                kind.new_ones(1, entry[0].shape[1]) if mask is None else mask.to(kind)
                for mask, entry in zip(masks, entries)
            ],
            1,
        )
    methods = {given.placement for given in references if given is not None and given.placement != "auto"}
    if not methods:  # else what the references say goes before what an adapter wrote into the conditioning
        methods = {
            entry[1]["reference_latents_method"] for entry in entries if "reference_latents_method" in entry[1]
        }
    if len(methods) > 1:
        raise SqueezeError(
            f"The references are placed {' and '.join(sorted(methods))}; all must be placed alike. Set the "
            "placement of all Reference Tokens to the same, or to auto."
        )
    if methods:
        (options["reference_latents_method"],) = methods
    return options


def place_of(plan: ScenePlan, number: int) -> Region:
    """The cells of a plan's subject."""
    return Region(mask=(torch.tensor(plan.grid) == number).float())


def _planned(subjects: tuple[Subject, ...], plan: ScenePlan) -> tuple[Subject, ...]:
    from ..squeeze_core.planning.checks import check

    numbers = sorted(check(plan).numbers)
    if len(numbers) != len(subjects):
        raise SqueezeError(
            f"There are {len(subjects)} subjects, and {len(numbers)} in the plan. Give each subject of the plan a "
            "Subject node."
        )
    return tuple(replace(subject, place=place_of(plan, number)) for subject, number in zip(subjects, numbers))


def _placed(subjects: tuple[Subject, ...], given: object) -> tuple[Subject, ...]:
    found: tuple[PixelBox, ...] = boxes(given)
    if len(found) != len(subjects):
        raise SqueezeError(
            f"There are {len(subjects)} subjects and {len(found)} boxes. Draw one box for each, in the subjects' "
            "order."
        )
    return tuple(replace(subject, place=Region((box,))) for subject, box in zip(subjects, found))
