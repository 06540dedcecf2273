"""Plans of scenes: who stands where, by an MLLM, by a rule, or by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.images import to_tensor
from . import folders
from .images import pictures
from .score import NONE
from .sockets import CATEGORY, MLLM, REFUSES_UNKNOWN, Boxes, Plans, boxes_input, pictures_input

if TYPE_CHECKING:
    from ..squeeze_core.planning.plan import ScenePlan


class PlanScene(io.ComfyNode):
    """Instruction and pictures -> plans, the best first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..squeeze_core.planning.planner import MOST_CANDIDATES, PLANNERS

        return io.Schema(
            node_id="SqueezePlanScene",
            **REFUSES_UNKNOWN,
            display_name="Plan Scene",
            category=CATEGORY,
            description="Plan a picture of several subjects before it is drawn: who is who, what each one's own "
            "words are, and who stands where. By an MLLM, or by a rule without one.",
            search_aliases=["layout", "regional prompt", "multi subject", "two characters", "scene planner"],
            inputs=[
                io.String.Input(
                    "instruction",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="The cat of picture 1 left of the dog of picture 2, on a beach",
                    tooltip="What you want to see. Pictures are named in their order.",
                ),
                pictures_input("A picture of a subject; a new socket appears as you connect one."),
                MLLM.Input(
                    "mllm",
                    optional=True,
                    tooltip="From Load MLLM. Without one, and with the toy world's, the rule plans.",
                ),
                io.Combo.Input(
                    "planner",
                    options=list(PLANNERS),
                    tooltip="mllm: the model reads the pictures and thinks first. rule: equal columns, or what "
                    "words such as 'left of' say. auto: mllm if one is connected that can plan.",
                ),
                io.Int.Input(
                    "candidates",
                    default=4,
                    min=1,
                    max=MOST_CANDIDATES,
                    tooltip="Plans that the MLLM writes side by side from one reading. The rule makes one.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The same seed gives the same plans. Without effect on the rule.",
                ),
                io.Float.Input(
                    "temperature",
                    default=0.7,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much candidates differ. 0 makes a single plan, the likeliest.",
                ),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=12,
                    optional=True,
                    advanced=True,
                    tooltip="How many subjects the MLLM plans. 0: one for each picture, and others if it wants.",
                ),
                io.Combo.Input(
                    "trained",
                    options=[NONE, *folders.adapter_choices()],
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="A trained planner for this MLLM, from models/squeeze. It is heard only while the MLLM "
                    "plans.",
                ),
            ],
            outputs=[
                Plans.Output(display_name="plan", tooltip="All plans, the best first."),
                io.String.Output(display_name="text", tooltip="The plans as JSON, to be changed in Edit Plan."),
                io.Image.Output(display_name="image", tooltip="The grid of each plan, with names."),
                io.String.Output(
                    display_name="report", tooltip="What was put right in each plan, what was dropped."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, trained: str | None = NONE, **kwargs) -> tuple[str, int] | None:
        if trained in (None, NONE):
            return None
        path = folders.adapter_path(str(trained))
        return path.name, path.stat().st_mtime_ns

    @classmethod
    def execute(
        cls,
        instruction: str,
        planner: str,
        candidates: int,
        seed: int,
        images=None,
        mllm=None,
        temperature: float = 0.7,
        count: int = 0,
        trained: str = NONE,
        **unknown,
    ) -> io.NodeOutput:
        from ..squeeze_core.planning import adapter
        from ..squeeze_core.planning.files import plans_text
        from ..squeeze_core.planning.planner import plan_scene

        planned = plan_scene(
            instruction,
            pictures(images, unknown),
            mllm,
            planner,  # type: ignore[arg-type]  # one of the options
            candidates=candidates,
            seed=seed,
            temperature=temperature,
            subjects=count or None,
            adapter=None if trained == NONE else adapter.load(folders.adapter_path(trained)),
        )
        return io.NodeOutput(planned.plans, plans_text(planned.plans), _drawn(planned.plans), planned.report())


class EditPlan(io.ComfyNode):
    """A plan as text, as boxes and as masks, and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeEditPlan",
            display_name="Edit Plan",
            category=CATEGORY,
            description="Choose a plan, change it as text, or move its subjects by boxes drawn on a canvas or by "
            "masks. Also for a plan written by hand: it needs no MLLM.",
            search_aliases=["bounding box", "regional prompt", "layout editor", "multi subject"],
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="A plan as JSON, from Plan Scene or by hand. Empty: the connected plan as it is.",
                ),
                io.Int.Input(
                    "pick",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="Which of several plans, the best is 1.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=16,
                    max=16384,
                    step=16,
                    tooltip="Of the picture in pixels, in which boxes are given and come out.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=16,
                    max=16384,
                    step=16,
                    tooltip="Of the picture in pixels, in which boxes are given and come out.",
                ),
                Plans.Input("plan", optional=True, tooltip="From Plan Scene. Not used when there is a text."),
                boxes_input(
                    "boxes",
                    tooltip="A box for each subject, in their order, from Create Bounding Boxes on a canvas of "
                    "this width and height. They replace the grid.",
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="A mask for each subject, in their order, as a batch: SAM3's with individual_masks. "
                    "They replace the grid.",
                ),
            ],
            outputs=[
                Plans.Output(display_name="plan", tooltip="The chosen plan, changed and checked."),
                Boxes.Output(
                    display_name="boxes",
                    tooltip="The box around each subject, for Apply Layout, Subject or Create Bounding Boxes.",
                ),
                io.Mask.Output(display_name="masks", tooltip="Each subject's part of the picture, as a batch."),
                io.Image.Output(display_name="image", tooltip="The grid with names, for Preview Image."),
                io.String.Output(display_name="text", tooltip="The plan as JSON."),
            ],
        )

    @classmethod
    def execute(
        cls, text: str, pick: int, width: int, height: int, plan=None, boxes=None, masks=None
    ) -> io.NodeOutput:
        from ..squeeze_core.planning import files
        from ..squeeze_core.planning.checks import check

        if not text.strip() and plan is None:
            raise SqueezeError("There is no plan. Connect one from Plan Scene, or write one into the text.")
        chosen = files.pick(files.parse_plans(text, "The text") if text.strip() else plan, pick)
        changed = check(_moved(chosen, boxes, masks, width, height))
        return io.NodeOutput(
            (changed,),
            [_boxes(changed, width, height)],
            changed.masks(height, width).float(),
            _drawn([changed]),
            changed.to_json(),
        )


def _moved(plan: ScenePlan, boxes: Any, masks: torch.Tensor | None, width: int, height: int) -> ScenePlan:
    """The plan on boxes or on masks [subjects, height, width], in the order of its subjects."""
    from ..squeeze_core.planning.pixels import from_pixels

    if boxes is not None and masks is not None:
        raise SqueezeError("Boxes and masks are connected. Give one of them.")
    regions: Sequence[Any] = () if boxes is None else from_pixels(boxes, width, height)
    if masks is not None:
        regions = list(masks.reshape(-1, *masks.shape[-2:]))
    if boxes is None and masks is None:
        return plan
    if len(regions) != len(plan.numbers):
        kind = "boxes" if masks is None else "masks"
        raise SqueezeError(
            f"There are {len(regions)} {kind} for {len(plan.numbers)} subjects. Give one for each, in their order."
        )
    placed = dict(zip(plan.numbers, regions))
    return plan.with_boxes(placed) if masks is None else plan.with_masks(placed)


def _boxes(plan: ScenePlan, width: int, height: int) -> list[dict[str, Any]]:
    from ..squeeze_core.planning.picture import colour_of
    from ..squeeze_core.planning.pixels import to_pixels

    names = {subject.number: subject.name for subject in plan.subjects}
    ordered = {number: plan.boxes[number] for number in plan.numbers}
    return to_pixels(ordered, width, height, names, {number: colour_of(number) for number in plan.numbers})


def _drawn(plans: Sequence[ScenePlan]) -> torch.Tensor:
    """[plans, 512, 512, 3]"""
    from ..squeeze_core.planning.picture import draw_plan

    return torch.stack([to_tensor(draw_plan(plan)) for plan in plans])
