"""A plan becomes subjects: one MLLM encode for each, with its own picture, and its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.images import to_picture
from ..squeeze_core.references import References
from .dla import Aggregate
from .layout import Subject, place_of
from .sockets import CATEGORY, DLA, MLLM, Plans, ReferenceLatents, Subjects

if TYPE_CHECKING:
    from ..squeeze_core.planning.plan import PlanSubject, ScenePlan


class EncodePlan(io.ComfyNode):
    """All separate encodes of a plan in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeEncodePlan",
            display_name="Encode Plan",
            category=CATEGORY,
            description="Reads each subject of a plan by itself, with its own caption and picture, and gives it "
            "its place. Everything that a Subject node does, for the whole plan.",
            search_aliases=["regional prompt", "multi subject", "two characters", "layout", "scene"],
            inputs=[
                Plans.Input("plan", tooltip="From Plan Scene or Edit Plan."),
                MLLM.Input("mllm", tooltip="From Load MLLM or Toy World. It runs once for each subject."),
                DLA.Input("dla", tooltip="From Load Squeeze Adapter or Toy World."),
                io.Int.Input("pick", default=1, min=1, max=100, tooltip="Which of the plans; the first is 1."),
                ReferenceLatents.Input(
                    "references",
                    optional=True,
                    tooltip="The pictures that the plan was made for, in order, from chained Reference Tokens. The "
                    "MLLM reads the originals.",
                ),
                io.Conditioning.Input(
                    "clip_l",
                    optional=True,
                    tooltip="Only for adapters trained with CLIP-L's pooled vector: CLIP Text Encode of the scene.",
                ),
            ],
            outputs=[
                Subjects.Output(display_name="subjects", tooltip="For Apply Layout."),
                io.Conditioning.Output(
                    display_name="scene",
                    tooltip="The plan's words on the scene, without pictures. Only where captions do not say it.",
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The null context that was trained as neither text nor pictures. Needs no gate.",
                ),
            ],
        )

    @classmethod
    def execute(cls, plan, mllm, dla, pick: int = 1, references=None, clip_l=None) -> io.NodeOutput:
        from ..squeeze_core.planning.checks import check
        from ..squeeze_core.planning.files import pick as picked

        items = () if references is None else references.items
        chosen: ScenePlan = check(picked(plan, pick), len(items))
        if any(item.picture is None for item in items):
            raise SqueezeError("These references carry no pictures to read. Take them from Reference Tokens.")

        ordered = sorted(chosen.subjects, key=lambda subject: -subject.depth)
        prompts = []
        for one in ordered:
            seen = () if one.picture is None else (to_picture(items[one.picture - 1].picture.image),)
            prompts.append(dla.config.prompt(one.caption or f"a photo of {one.name or 'the subject'}", seen))
        prompts.append(dla.config.prompt(chosen.scene or "a photo", ()))
        said = [
            Aggregate.execute(states, dla, "all", "all", clip_l).args[:2] for states in mllm.encode_many(prompts)
        ]

        def made(one: PlanSubject, positive) -> Subject:
            given = None
            if one.picture is not None and references is not None:
                given = References((items[one.picture - 1],), references.placement, references.attention)
            return Subject(one.name or f"subject {one.number}", positive[0], given, place_of(chosen, one.number))

        subjects = tuple(made(one, positive) for one, (positive, _) in zip(ordered, said))
        scene, negative = said[-1]
        return io.NodeOutput(subjects, scene, negative)
