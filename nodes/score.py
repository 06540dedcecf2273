"""Scores of pictures against references and a prompt, in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..squeeze_core.evaluation.scoring import RANKINGS, BatchScores, score
from ..squeeze_core.images import to_picture
from ..squeeze_core.mllm.backbone import Progress
from . import folders, paging
from .images import pictures
from .sockets import CATEGORY, REFUSES_UNKNOWN, pictures_input

NONE = "(none)"
_BYTES_A_PICTURE = 64 * 2**20  # activations of a ViT-B or ViT-L, generously
_AT_ONCE = 8


class Score(io.ComfyNode):
    """A batch -> identity, text, pose of each picture, and which is best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeScore",
            **REFUSES_UNKNOWN,
            display_name="Score Pictures",
            category=CATEGORY,
            description="Measure each picture of a batch: likeness to the references (DINO-I, CLIP-I), fit to the "
            "prompt (CLIP-T), difference of pose. Says which picture is best.",
            search_aliases=["DINO score", "CLIP score", "similarity", "best of n", "copy-paste"],
            inputs=[
                io.Image.Input("generated", tooltip="The pictures to score, as a batch."),
                pictures_input(
                    "A reference picture; a new socket appears as you connect one. Identity and pose are the mean "
                    "over all of them."
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    tooltip="What the pictures should show, for the text score. Empty: no text score.",
                ),
                model_input("dino", "Identity: DINO ViT-S/16, as in the paper; else CLIP measures it."),
                model_input("clip", "Text, and identity without DINO. CLIP ViT-B/32, as in the paper."),
                model_input("orientation", "Pose: Orient Anything reads which way the subject faces."),
                io.Combo.Input(
                    "rank_by",
                    options=list(RANKINGS),
                    default="identity + text",
                    tooltip="What makes a picture the best. pose: the pose furthest from the references'.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="identity",
                    is_output_list=True,
                    tooltip="One number a picture: mean cosine with the references. NaN: not measured.",
                ),
                io.Float.Output(
                    display_name="text",
                    is_output_list=True,
                    tooltip="One number a picture: cosine with the prompt. NaN: not measured.",
                ),
                io.Float.Output(
                    display_name="pose",
                    is_output_list=True,
                    tooltip="One number a picture: degrees of turn from the references, 0 to 180. NaN: not known.",
                ),
                io.Int.Output(display_name="best", tooltip="Index of the best picture, for Get Image from Batch."),
                io.String.Output(display_name="report", tooltip="A table to read, for Preview as Text."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, dino: str | None = None, clip: str | None = None, orientation: str | None = None, images=None
    ) -> bool | str:
        try:  # images: ComfyUI passes growing inputs, asked for or not
            choices = {"dino": dino, "clip": clip, "orientation": orientation}
            for role, choice in choices.items():
                if choice not in (NONE, None):  # None: connected to another node, known only when it runs
                    folders.evaluation_path(role, choice)
            if set(choices.values()) == {NONE}:
                folders.check_evaluation(choices)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        generated: torch.Tensor,
        dino: str,
        clip: str,
        orientation: str,
        rank_by: str,
        images=None,
        prompt: str = "",
        **unknown,
    ) -> io.NodeOutput:
        from ..squeeze_core.vision.backbones import load_clip, load_dino
        from ..squeeze_core.vision.orientation import load_orientation

        references = pictures(images, unknown)
        models = {
            "dino": hosted("dino", dino, load_dino),
            "clip": hosted("clip", clip, load_clip),
            "orientation": hosted("orientation", orientation, load_orientation),
        }
        found: BatchScores = score(
            [to_picture(image) for image in generated],
            references,
            prompt,
            **models,
            rank_by=rank_by,
            progress=named(paging.interruptible_progress()),
        )
        return io.NodeOutput(found.identity, found.text, found.pose, found.best, found.report())


def model_input(role: str, tooltip: str) -> io.Combo.Input:
    """A choice of the models in models/evaluation for one of their roles."""
    # The first that is there is the default, so that the node works as soon as a model does.
    choices = list(folders.evaluation_choices(role))
    return io.Combo.Input(
        role, options=[*choices, NONE], tooltip=f"{tooltip} A folder under models/evaluation; (none) leaves it out."
    )


def hosted(role: str, choice: str, load: Callable[[Path, str], Any]) -> Any:
    """The model under ComfyUI's memory manager, for this run of the node: they load in a second."""
    if choice == NONE:
        return None
    scorer = load(folders.evaluation_path(role, choice), "cpu")
    paging.host_scorer(scorer, _AT_ONCE * _BYTES_A_PICTURE)
    return scorer


def named(progress: Progress) -> Callable[[str, int, int], None]:
    return lambda what, done, total: progress(done, total)
