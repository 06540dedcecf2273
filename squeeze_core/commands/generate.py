"""`squeeze generate`: a prompt and reference pictures -> picture files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import SqueezeError
from ..picture_files import read_mask, read_picture, write_picture
from . import options
from .best_of import BestOf, out_plan, planned, write_best
from .console import check_output, progress_bar, say
from .models import Models, gate_of

if TYPE_CHECKING:
    from ..generation import GenerationSettings
    from ..planning.plan import ScenePlan

EXAMPLE = (
    'squeeze generate --reference toy.png --prompt "a photo of the small toy, at the top, on a beach" --out out.png'
)


def generate(
    prompt: Annotated[str, typer.Option(help="What to show; pictures may be named in their order.")] = "",
    reference: Annotated[list[Path], typer.Option(help="Picture of a subject; repeat for several.")] = [],  # noqa: B006
    mask: Annotated[list[Path], typer.Option(help="White at the subject; one for each reference.")] = [],  # noqa: B006
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Plan file: each subject is encoded by itself and kept to its place; no --prompt."),
    ] = None,
    pick: Annotated[int, typer.Option(help="Which plan of the file; the first is 1.")] = 1,
    plan_candidates: Annotated[
        int,
        typer.Option(
            min=0, help="Plan the prompt first, so many ways: by the MLLM, in the toy world by rule. 0: no plan."
        ),
    ] = 0,
    best_of: Annotated[
        int, typer.Option(min=1, help="Pictures of each plan, of which the best is kept, with a sheet of all.")
    ] = 1,
    rule: Annotated[
        str, typer.Option(help="Of --best-of: smallest_identity (DINO) or clip_t (the paper's).")
    ] = "smallest_identity",
    judges: Annotated[Path, typer.Option(help="Where DINO and CLIP for --best-of lie, a folder each.")] = Path(
        "models"
    ),
    until: Annotated[float, typer.Option(help="Sigma down to which subjects are kept apart; 0: to the end.")] = 0.0,
    out: Annotated[Path, typer.Option(help="File to write; with --count, numbers are added.")] = Path("out.png"),
    flux: options.Flux = None,
    vae: options.Vae = None,
    mllm: options.Mllm = None,
    adapter: options.AdapterFile = None,
    aligner: options.Aligner = None,
    clip: options.Clip = None,
    strength: Annotated[float, typer.Option(help="Of the adapter's LoRA.")] = 1.0,
    height: Annotated[int, typer.Option(help="Pixels, a multiple of 16; 0: 1024, toy world 128.")] = 0,
    width: Annotated[int, typer.Option(help="Pixels, a multiple of 16; 0: 1024, toy world 128.")] = 0,
    steps: options.Steps = 28,
    curve: options.Curve = "cosine",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same picture.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures of one seed.")] = 1,
    tau_1: Annotated[Optional[float], typer.Option(help="References join below this sigma.")] = None,  # noqa: UP045
    tau_2: Annotated[Optional[float], typer.Option(help="The MLLM falls silent below it.")] = None,  # noqa: UP045
    late: options.Late = "",
    guidance: options.Guidance = None,
    cfg: options.Cfg = 1.0,
    long_side: Annotated[int, typer.Option(help="References' longer side; 0: as the adapter was trained.")] = 0,
    fit: Annotated[str, typer.Option(help="Sides to multiples of 16: resize or pad.")] = "resize",
    placement: Annotated[str, typer.Option(help="auto, uxo, offset or index.")] = "auto",
    text_layers: Annotated[str, typer.Option(help='MLLM layers kept, such as "0-9,20-28".')] = "all",
    image_layers: Annotated[str, typer.Option(help="The same for picture tokens.")] = "all",
    system_prompt: Annotated[Optional[str], typer.Option(help="Instead of the adapter's.")] = None,  # noqa: UP045
    tiles: Annotated[Optional[int], typer.Option(help="Tiles a picture, 1 to 12.")] = None,  # noqa: UP045
    cache: Annotated[float, typer.Option(help="Skip steps that change less, such as 0.1; 0: none.")] = 0.0,
    dtype: options.Dtype = "default",
    mllm_dtype: options.MllmDtype = "default",
    device: options.Device = "",
    offload: options.Offload = False,
) -> None:
    """Generate pictures of your subject.

    Without --flux, --mllm and --adapter the toy world answers: tiny models of the real architectures, on a CPU,
    in seconds.
    """
    from ..references import check_masks

    check_output(out)
    for path in (*reference, *mask):
        if out.exists() and path.exists() and out.samefile(path):
            raise SqueezeError(f'--out is "{out}", which is also given as a picture. Choose another name.')
    check_masks(len(reference), len(mask) or None)
    if plan is not None and prompt:
        raise SqueezeError("There is a plan and a prompt. The plan's captions are the words: leave --prompt away.")
    if plan is None and not prompt:
        raise SqueezeError("The prompt is empty. Give --prompt with what to show, or --plan with a plan file.")
    if not 0 <= until <= 1:
        raise SqueezeError(f"until is {until:g}; it is a sigma in 0 (to the end) to 1 (not at all).")
    images = [read_picture(path) for path in reference]
    masks = [read_mask(path) for path in mask] if mask else None
    models = Models(flux, vae, mllm, adapter, clip, dtype, mllm_dtype, device or None, offload, aligner)
    best = BestOf(plan_candidates, best_of, rule, judges)
    if plan is not None and plan_candidates:
        raise SqueezeError("There is a plan, and plans are asked for. Give --plan or --plan-candidates.")
    best.check(planned=plan is not None or plan_candidates > 0, count=count, toy=models.toy)
    from ..best_scene import generate_best
    from ..flux.lora import check_strength
    from ..generation import GenerationSettings
    from ..pipeline import check, reference_pictures
    from ..planning.files import pick as picked
    from ..planning.files import read_plans, write_plans
    from ..planning.planner import check_request
    from ..scene import generate_scene, placed_subjects

    # Whatever can be wrong is found before gigabytes are loaded.
    check_strength(strength)
    trained = models.adapter_config()
    settings = GenerationSettings(
        height=height or models.side,
        width=width or models.side,
        steps=steps,
        curve=curve,  # type: ignore[arg-type]  # checked by the settings
        seed=seed,
        batch=count,
        gate=gate_of(trained.gate, tau_1, tau_2, late),
        guidance=guidance,
        true_cfg=cfg,
        long_side=long_side or trained.long_side,
        fit=fit,  # type: ignore[arg-type]
        placement=placement,  # type: ignore[arg-type]
        text_layers=text_layers,
        image_layers=image_layers,
        system_prompt=system_prompt,
        tiles=tiles,
        cache=cache,
    )
    plans: tuple[ScenePlan, ...] = () if plan is None else (picked(read_plans(plan), pick),)
    if plan_candidates:
        check_request(len(images), plan_candidates)
    for one in (subject for each in plans for subject in placed_subjects(each, images, masks)):
        check(trained, one.caption, () if one.image is None else (one.image,), settings)
    if plan is None:
        check(trained, prompt, images, settings, masks)
    else:
        reference_pictures(images, masks, settings, trained.long_side)
    if models.toy:
        from ..toyworld.hints import hints

        for sentence in hints(prompt, images, (settings.height, settings.width)):
            say(sentence)
    pipeline = models.load(strength)
    chosen = None
    with progress_bar() as progress:
        if plan_candidates:
            plans = planned(pipeline, prompt, images, plan_candidates, seed, progress)
        if len(plans) * best_of > 1:
            dino, clip_judge = best.models(models.toy, str(pipeline.device))
            chosen = generate_best(
                pipeline,
                plans,
                images,
                settings,
                best_of,
                prompt=prompt or plans[0].scene,
                rule=best.rule,  # type: ignore[arg-type]  # checked above
                masks=masks,
                dino=dino,
                clip=clip_judge,
                until=until,
                progress=progress,
            )
            settings = replace(settings, seed=chosen.seed)
        elif plans:
            subjects = placed_subjects(plans[0], images, masks)
            made = generate_scene(pipeline, subjects, settings, until=until, progress=progress).images
        else:
            made = pipeline.generate(prompt, images, settings, masks=masks, progress=progress).images
    told = _notes(prompt, reference, settings, models.toy)
    if plans:
        used = plans[0] if chosen is None else chosen.plan
        captions = [one.caption for one in placed_subjects(used, images, masks)]
        told |= {"plan": out_plan(out).name if plan is None else plan.name, "captions": captions, "until": until}
        told |= {"pick": pick if plan is not None else 1}
    notes = {"squeeze": json.dumps(told)}
    if chosen is not None:
        written = write_best(chosen, out, notes)
    else:
        names = [out] if len(made) == 1 else [out.with_stem(f"{out.stem}_{i}") for i in range(1, len(made) + 1)]
        written = [write_picture(picture, path, notes) for picture, path in zip(made, names)]
    if plans and plan is None:
        written.append(write_plans([plans[0] if chosen is None else chosen.plan], out_plan(out)))
    for path in written:
        print(path)


def _notes(prompt: str, references: list[Path], settings: GenerationSettings, toy: bool) -> dict:
    from dataclasses import asdict

    return {
        "prompt": prompt,
        "references": [path.name for path in references],
        "toy_world": toy,
        **asdict(settings),
    }
