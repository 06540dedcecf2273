"""Best of N in the graph: the picture that keeps its subjects best."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..squeeze_core.images import to_picture, to_tensor
from ..squeeze_core.planning.best_of import RULES, check_choice, pick_best, sheet
from . import folders, paging
from .images import pictures
from .score import NONE, hosted, model_input, named
from .sockets import CATEGORY, REFUSES_UNKNOWN, Plans, pictures_input


class PickBest(io.ComfyNode):
    """Pictures of one scene -> the best of them, and the scores of all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezePickBest",
            **REFUSES_UNKNOWN,
            display_name="Pick Best",
            category=CATEGORY,
            description="Keep the best of several pictures of one scene: each subject's part is cut out and "
            "compared with its reference, and the subject that is kept worst decides.",
            search_aliases=["best of n", "rank", "select image", "multi subject"],
            inputs=[
                io.Image.Input("generated", tooltip="The pictures to choose from, as a batch."),
                Plans.Input(
                    "plan", tooltip="From Edit Plan: one plan for all pictures, or as many plans as pictures."
                ),
                pictures_input("The reference of each subject, in the order in which the plan numbers them."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    tooltip="What the pictures should show, for the text score. Empty: no text score.",
                ),
                model_input("dino", "Identity: DINO ViT-S/16, as in the paper; else CLIP measures it."),
                model_input("clip", "Text, and identity without DINO. CLIP ViT-L/14, as in the paper."),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    tooltip="smallest_identity: the worst kept subject decides, then the text. clip_t: the text "
                    "score alone, as in the paper; it may prefer merged subjects.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The best picture."),
                io.Image.Output(
                    display_name="sheet", tooltip="All pictures with plan and scores, for Preview Image."
                ),
                io.String.Output(display_name="report", tooltip="The scores as a table, for Preview as Text."),
                io.Int.Output(display_name="best", tooltip="Index of the best picture, from 0."),
            ],
        )

    @classmethod
    def validate_inputs(cls, dino: str | None = None, clip: str | None = None, images=None) -> bool | str:
        try:  # images: ComfyUI passes growing inputs, asked for or not
            for role, choice in (("dino", dino), ("clip", clip)):
                if choice not in (NONE, None):  # None: connected to another node, known only when it runs
                    folders.evaluation_path(role, choice)
            if {dino, clip} == {NONE}:
                folders.check_evaluation(("dino", "clip"))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        generated: torch.Tensor,
        plan,
        dino: str,
        clip: str,
        rule: str,
        images=None,
        prompt: str = "",
        **unknown,
    ) -> io.NodeOutput:
        from ..squeeze_core.vision.backbones import load_clip, load_dino

        shown = pictures(images, unknown)
        models = {"identity": {dino, clip} != {NONE}, "text": clip != NONE}
        check_choice(len(generated), plan, len(shown), prompt, rule, **models)
        made = [to_picture(image) for image in generated]
        found = pick_best(
            made,
            plan,
            shown,
            prompt,
            rule=rule,  # type: ignore[arg-type]  # one of the options
            dino=hosted("dino", dino, load_dino),
            clip=hosted("clip", clip, load_clip),
            progress=named(paging.interruptible_progress()),
        )
        table = to_tensor(sheet(made, plan, found))[None]
        return io.NodeOutput(generated[found.best : found.best + 1], table, found.report(), found.best)
