"""Several subjects in one picture: one encode a subject, contexts joined, each kept to its own place.

Method: one MLLM encode for each subject alone, with its own picture and a sentence that names the scene and the
subject's place, and a layout in attention that lets words and references of each be seen only where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from .attention.regions import Region
from .attention.rules import MAX_SUBJECTS, Layout
from .errors import SqueezeError
from .gate import Stage
from .generation import GenerationResult, GenerationSettings
from .layers import LayerSelection
from .mllm.backbone import Prompt
from .pipeline import Progress, SqueezePipeline, asked, reference_pictures
from .planning.checks import check
from .planning.plan import ScenePlan


@dataclass(frozen=True)
class PlacedSubject:
    """One subject: what is said of it alone, where it stands, and its reference picture, if there is one.

    caption: this subject alone, in the scene and with its place. mask: white at the subject in its picture.
    """

    caption: str
    place: Region
    image: Image.Image | None = None
    mask: Image.Image | None = None

    def __post_init__(self) -> None:
        if not self.caption.strip():
            raise SqueezeError("A subject has no words. Give it a caption: the subject alone, with its place.")


def placed_subjects(
    plan: ScenePlan, images: Sequence[Image.Image] = (), masks: Sequence[Image.Image | None] | None = None
) -> list[PlacedSubject]:
    """A plan's subjects with their pictures, the nearest to the viewer last.

    images, masks: in the order of the plan's picture numbers. Raises `SqueezeError` for a plan that is not sound or
    was made for other pictures.
    """
    check(plan, len(images))
    masks = [None] * len(images) if masks is None else masks
    cells = torch.tensor(plan.grid)
    made = []
    for one in sorted(plan.subjects, key=lambda subject: -subject.depth):
        image, mask = (None, None) if one.picture is None else (images[one.picture - 1], masks[one.picture - 1])
        caption = one.caption or f"a photo of {one.name or 'the subject'}"
        made.append(PlacedSubject(caption, Region(mask=(cells == one.number).float()), image, mask))
    return made


@torch.no_grad()
def generate_scene(
    pipeline: SqueezePipeline,
    subjects: Sequence[PlacedSubject],
    settings: GenerationSettings | None = None,
    *,
    scene: str = "",
    until: float = 0.0,
    pooled: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    sigmas: torch.Tensor | None = None,
    progress: Progress | None = None,
) -> GenerationResult:
    """Everything from subjects to picture; parameters and errors as of `SqueezePipeline.generate`.

    subjects: 1 to 12, the nearest to the viewer last. scene: words for all of the picture, encoded without a
    picture and put in front; empty for none, when the captions say it. until: the sigma down to which the layout
    holds. The result's weights are those of the last subject.
    """
    if not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise SqueezeError(f"There are {len(subjects)} subjects; 1 to {MAX_SUBJECTS} are possible.")
    settings = settings or GenerationSettings()
    levels, start = pipeline.levels(settings, sigmas), pipeline.starting_noise(settings, noise)
    selections = [LayerSelection.parse(text) for text in (settings.text_layers, settings.image_layers)]
    for selection in selections:
        selection.indices(pipeline.config.dla.layers)
    pictured = [(number, one) for number, one in enumerate(subjects, start=1) if one.image is not None]
    images = [one.image for _, one in pictured if one.image is not None]
    pictures = reference_pictures(images, [one.mask for _, one in pictured], settings, pipeline.config.long_side)

    prompts = scene_prompts(pipeline, subjects, settings, scene)
    contexts, words = [], []
    owners = range(len(subjects) - len(prompts) + 1, len(subjects) + 1)  # from 0 with words for the scene
    for owner, states in zip(owners, pipeline.encode_many(prompts, progress)):
        context, weights = pipeline.aggregate(states, *selections)
        contexts.append(context)
        words.append((owner, states.tokens))
    places = tuple((number, one.place) for number, one in enumerate(subjects, start=1))
    layout = Layout(tuple(words), places, tuple(number for number, _ in pictured), until)

    encoded = pipeline.encode_references(pictures, settings.placement, progress)
    gate = settings.gate or pipeline.config.gate
    latents = pipeline.sample(
        torch.cat(contexts)[None],
        pipeline.pooled_vector(pooled, prompts[0].text, contexts[0]),
        encoded,
        start,
        levels,
        gate=gate,
        guidance=settings.guidance,
        true_cfg=settings.true_cfg,
        layout=layout,
        cache=settings.cache,
        progress=progress,
    )
    stages = [gate.stage(float(sigma)) if encoded.latents else Stage.EARLY for sigma in levels[:-1]]
    tokens = sum(count for _, count in words)
    return GenerationResult(latents, pipeline.decode(latents, progress), encoded, levels, stages, weights, tokens)


def scene_prompts(
    pipeline: SqueezePipeline, subjects: Sequence[PlacedSubject], settings: GenerationSettings, scene: str = ""
) -> list[Prompt]:
    """What the MLLM reads for a scene: the words for all of it, if there are any, then each subject alone."""
    said: list[tuple[str, tuple[Image.Image, ...]]] = [(scene, ())] if scene.strip() else []
    said += [(one.caption, () if one.image is None else (one.image,)) for one in subjects]
    return [asked(pipeline.config, text, images, settings) for text, images in said]
