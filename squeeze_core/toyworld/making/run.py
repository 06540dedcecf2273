"""Makes the toy world's trained weights, part after part, in one folder.

OUT/vae, mllm, flux, stage1, stage2    run folders of the training loop, each resumable
OUT/weights                            what came out, bf16, with `made_by.json`: config and command of each
OUT/world                              a toy world with the parts that are there
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...config_files import changed, read_yaml
from ...dla import Variant
from ...errors import SqueezeError
from ...files import save_atomically, write_text
from ...training.checkpoint import Checkpoints, read_tensors
from ...training.config_files import load_config
from ...training.loop import Progress, RunResult, Trainer
from ...training.state import AVERAGE, WEIGHTS
from .. import world
from ..folding import folded
from .beginning import VARIANTS
from .settings import PARTS, FluxSettings, MLLMSettings, VAESettings, parse

if TYPE_CHECKING:
    from ...training.task import Task

STAGES = ("stage1", "stage2")
ORDER = (*PARTS, *STAGES)
_SINGLE = ("dla.variant=single",)
# For the table: adapters of other designs, with the stage whose config they change. Each begins with a projector
# fitted to its own untrained aggregator, so that all are alike; "one stage" begins where stage 1 does, and "two
# stages" with what stage 1 gave, for a comparison of as many steps where the adapter itself has learned for longer.
ABLATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{f"table6_{variant}": ("stage1", (f"dla.variant={variant}",)) for variant in VARIANTS},
    "table7_one_stage": ("stage2", ("steps=9000",)),
    "table7_two_stages": ("stage2", ()),
    "fig3b_text": ("stage1", (*_SINGLE, "data.0.options.says=caption", "drops.pictures=1.0")),
    "fig3b_picture": ("stage1", (*_SINGLE, "data.0.options.says=same", "drops.pictures=0.0")),
}
_AFTER_STAGE_1 = ("stage2", "table7_two_stages")
# In the repository; an installed package has no configs.
CONFIGS = Path(__file__).resolve().parents[3] / "configs"
COMMAND = "squeeze toyworld train --only {part} --out RUN"


def train_part(
    part: str,
    out: Path,
    *,
    configs: Path = CONFIGS,
    changes: Sequence[str] = (),
    resume: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Train one part of `ORDER` or `ABLATIONS` and put it into OUT/weights and OUT/world.

    One that is done is not done again. changes: `key=value`, as for `squeeze train`. Raises `SqueezeError` when
    an earlier part is missing.
    """
    if part not in (*ORDER, *ABLATIONS):
        known = ", ".join((*ORDER, *ABLATIONS))
        raise SqueezeError(f'There is no part "{part}" of the toy world. Choose one of {known}.')
    stage, own_changes = ABLATIONS.get(part, (part, ()))
    path, paths = configs / f"toy_{stage}.yaml", world.ToyWorldPaths(out / "world")
    settings: Any
    if stage in STAGES:
        variant: Variant = next((each for each in VARIANTS if f"dla.variant={each}" in own_changes), "dual")
        start = out / "stage1" if part in _AFTER_STAGE_1 else out / "starts" / f"{variant}.safetensors"
        given = {
            "models.flux": paths.flux,
            "models.vae": paths.vae,
            "models.mllm": paths.mllm,
            "init": start,
            "latent_cache": out / "latents",  # pictures are the same for all adapters
        }
        first = [f"{key}={value}" for key, value in given.items()]
        settings = load_config(path, (*first, *own_changes, *changes))
        if part in _AFTER_STAGE_1 and not Path(settings.init).exists():
            raise SqueezeError(
                f'"{part}" begins with what stage 1 gave, and there is no "{settings.init}": '
                "train --only stage1 first, or give init=ADAPTER."
            )
    else:
        settings = parse(changed(read_yaml(path), changes))
        if settings.init is not None and not (_init(settings) / f"{part}.safetensors").is_file():
            raise SqueezeError(
                f'"{_init(settings)}" has no {part}.safetensors to begin with. Set another init, or none.'
            )
    with _main_process_first(settings) as main:
        if main:
            _gather(part, out)
            world.assemble(paths.folder, out / "weights")
            if stage in STAGES and part not in _AFTER_STAGE_1:
                _write_start(start, out / "weights", paths, variant)
    task: Task
    if stage in STAGES:
        from ...training.build import squeeze_task
        from ..training import OPENERS, PLACES

        task = squeeze_task(settings, places=PLACES, openers=OPENERS)
    else:
        task = _task(settings, paths, out)
        if settings.init is not None:
            _begin_with(task.module, part, _init(settings))
    result = Trainer(task, settings, out / part, progress=progress).run(resume)
    with _main_process_first(settings) as main:
        if main and not result.interrupted:
            _keep(part, out, settings)
            world.assemble(paths.folder, out / "weights")
    return result


@contextmanager
def _main_process_first(settings: Any) -> Iterator[bool]:
    """Whether this is the process that writes files; the others begin with the block when it is done."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    from accelerate import PartialState

    state = PartialState(cpu=settings.on_cpu)
    with state.main_process_first():
        yield state.is_main_process


def _gather(part: str, out: Path) -> None:
    """Copy what a part is trained on and RUN lacks from what is shipped. Raises `SqueezeError`."""
    for needed in _needs(part):
        path_of_needed = out / "weights" / f"{needed}.safetensors"
        shipped = world.SHIPPED / path_of_needed.name
        if not path_of_needed.is_file() and shipped.is_file():
            path_of_needed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shipped, path_of_needed)
        if not path_of_needed.is_file():
            maker = "flux" if needed == "text" else needed
            raise SqueezeError(f'"{part}" is trained on the toy world\'s {needed}: train --only {maker} first.')


def _needs(part: str) -> tuple[str, ...]:
    """Files of weights; "text" is the T5 that FLUX learned with, which stage 1 begins from."""
    if part in _AFTER_STAGE_1:
        return (*PARTS, "adapter")
    return {"vae": (), "mllm": (), "flux": ("vae",)}.get(part, (*PARTS, "text"))


def _task(settings: VAESettings | MLLMSettings | FluxSettings, paths: world.ToyWorldPaths, out: Path) -> Task:
    if isinstance(settings, VAESettings):
        from .autoencoder import VAETask

        return VAETask(settings)
    if isinstance(settings, MLLMSettings):
        from .captioning import CaptioningTask

        return CaptioningTask(settings, paths.mllm)
    from diffusers import AutoencoderKL
    from transformers import AutoTokenizer

    from .drawing import DrawingTask

    autoencoder = AutoencoderKL.from_pretrained(paths.vae, local_files_only=True)
    words = AutoTokenizer.from_pretrained(paths.mllm, local_files_only=True)
    task = DrawingTask(settings, autoencoder, words, out / "pool")
    task.fill(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    return task


@torch.no_grad()
def _begin_with(module: torch.nn.Module, part: str, weights: Path) -> None:
    """Trained weights of a part in place of the new ones. Raises `SqueezeError` when they are not its weights."""
    files = {"flux": {"transformer.": "flux", "text.": "text"}, "mllm": {"mllm.": "mllm"}}.get(part, {"": part})
    parameters = dict(module.named_parameters())
    for prefix, name in files.items():
        for key, tensor in (world.trained_state(weights, name) or {}).items():
            into = parameters.get(prefix + key)
            if into is None or into.shape != tensor.shape:
                path = weights / f"{name}.safetensors"
                raise SqueezeError(f'"{path}" is of another model: {key} does not fit. Set another init, or none.')
            into.copy_(tensor)


def _keep(part: str, out: Path, settings: Any) -> None:
    """Write a part's weights as they are shipped, and how they were made."""
    weights = out / "weights"
    if part not in PARTS:
        from ...training.export import export

        name = "adapter" if part in STAGES else part
        export(out / part, weights / f"{name}.safetensors", "bf16")
    else:
        state = _trained_state(out / part)
        keepers: dict[str, Callable[[], None]] = {
            "vae": lambda: _save_vae(state, weights),
            "mllm": lambda: _save(weights / "mllm.safetensors", _as_checkpoint(state)),
            "flux": lambda: _save_flux(state, weights, settings.guidance),
        }
        keepers[part]()
    record = weights / "made_by.json"
    made = _records(weights)
    config = settings.model_dump(mode="json", exclude={"models", "init", "latent_cache"})
    made[part] = {"command": COMMAND.format(part=part), "config": config}
    if part in PARTS and settings.init is not None:
        made[part]["began_with"] = _records(_init(settings)).get(part, "weights of which nothing is known")
    write_text(record, json.dumps(made, indent=1) + "\n")


def _records(weights: Path) -> dict[str, Any]:
    """How the weights in a folder were made, by part."""
    path = weights / "made_by.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _init(settings: Any) -> Path:
    return world.SHIPPED if settings.init == "shipped" else Path(settings.init).expanduser()


def _trained_state(run: Path) -> dict[str, torch.Tensor]:
    newest = Checkpoints(run / "checkpoints").latest()
    if newest is None:
        raise SqueezeError(f'The run "{run}" has no checkpoint. Train it first.')
    return read_tensors(newest, AVERAGE) or read_tensors(newest, WEIGHTS)


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    bad = [name for name, tensor in state.items() if not tensor.numel() or not torch.isfinite(tensor).all()]
    if bad:
        raise SqueezeError(f"{bad[0]} is empty or not finite, so nothing was written. Train the part again.")
    save_atomically(path, {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, {"format": "pt"})


def _save_vae(state: dict[str, torch.Tensor], weights: Path) -> None:
    from .autoencoder import at_flux_scale

    _save(weights / "vae.safetensors", at_flux_scale(state))


def _as_checkpoint(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The MLLM without its output layer, which is the embedding, and without what only training asks."""
    return {name: tensor for name, tensor in _under("mllm.", state).items() if name != "lm_head.weight"}


def _save_flux(state: dict[str, torch.Tensor], weights: Path, guidance: float) -> None:
    """FLUX, and apart from it the text encoder that it learned with, which only `beginning` needs."""
    _save(weights / "text.safetensors", _under("text.", state))
    _save(weights / "flux.safetensors", folded(_under("transformer.", state), guidance))


def _under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _write_start(start: Path, weights: Path, paths: world.ToyWorldPaths, variant: Variant) -> None:
    """The adapter that stage 1 begins with; fitted anew when this run's FLUX or MLLM is newer than the fit."""
    from .beginning import write_projectors, write_start

    text, mllm, projectors = (weights / f"{part}.safetensors" for part in ("text", "mllm", "projectors"))
    newest = max(text.stat().st_mtime, mllm.stat().st_mtime)
    if not projectors.is_file() or projectors.stat().st_mtime < newest:
        write_projectors(projectors, text, paths.mllm)
    write_start(start, projectors, paths.mllm, variant)
