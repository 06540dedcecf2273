"""Pictures for a benchmark: resumable, in shards, named so that `naming` finds their cases again.

A picture is written whole or not at all, so that what is there is done, and a second start goes on where the
first one stopped. `run.json` says what the pictures were made with; going on with other settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SqueezeError
from ..files import whole, write_text
from ..gate import Gate
from ..shard import Shard
from ..vision.batches import Progress, is_out_of_memory
from .cases import Benchmark, Sample
from .generated_files import file_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..generation import GenerationSettings
    from ..pipeline import SqueezePipeline

RUN = "run.json"
AHEAD = 8  # samples whose prompts are read together
_MAY_CHANGE = {"data", "label", "notes"}  # none of them changes a picture
# Of GenerationSettings: seeds are the run's first and a picture's number, drawn together as memory allows.
_NOT_OF_A_RUN = {"seed", "batch"}
# Pictures of one sample, one for each seed.
Draw = Callable[[Sample, Sequence[int]], Sequence["Image"]]
# Told of the sample whose pictures come next and of those after it, so that what they need can be read together.
Ahead = Callable[[Sequence[Sample]], None]


@dataclass(frozen=True)
class Done:
    """made: pictures written now. kept: already there. batch: seeds at once, as memory allowed."""

    made: int
    kept: int
    batch: int


def generate(
    benchmark: Benchmark,
    folder: Path,
    draw: Draw,
    made_with: Mapping[str, Any],
    shard: Shard | None = None,
    progress: Progress | None = None,
    ahead: Ahead | None = None,
) -> Done:
    """Make every picture of a benchmark that is not there yet, as `folder/SUBJECT/PROMPT_SEED.png`.

    draw: one picture for each seed of a sample, in their order. It is called with as many seeds as memory
    takes: all of a sample first, half as many after each out of memory. made_with: what the pictures depend on,
    kept in run.json. ahead: called before the pictures of each sample, with it and others that come after it, until
    memory does not take them together. Raises `SqueezeError` when the folder holds a run with other settings.
    """
    claim(folder, benchmark, made_with)
    samples = (shard or Shard()).part(benchmark.samples)
    seeds = list(range(benchmark.seeds))
    total, done, made = len(samples) * len(seeds), 0, 0
    size = max(1, len(seeds))
    for number, sample in enumerate(samples):
        todo = [seed for seed in seeds if not (folder / file_name(sample, seed)).is_file()]
        done += len(seeds) - len(todo)
        if todo and ahead is not None:
            coming = [sample, *_without_pictures(samples[number + 1 : number + AHEAD], folder, len(seeds))]
            try:
                ahead(coming)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                ahead = None
                _free()
        while todo:
            batch = todo[:size]
            try:
                pictures = draw(sample, batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                size = max(1, len(batch) // 2)
                _free()
                continue
            for seed, picture in zip(batch, pictures):
                _write(picture, folder / file_name(sample, seed))
            todo = todo[len(batch) :]
            made += len(batch)
            done += len(batch)
            if progress:
                progress(benchmark.name, done, total)
    return Done(made, total - made, size)


def _without_pictures(samples: Sequence[Sample], folder: Path, seeds: int) -> list[Sample]:
    """Those that lack a picture."""
    return [
        sample
        for sample in samples
        if not all((folder / file_name(sample, seed)).is_file() for seed in range(seeds))
    ]


def with_pipeline(pipeline: SqueezePipeline, settings: GenerationSettings, first_seed: int = 0) -> Draw:
    """Draw with a pipeline. Picture s of a sample is what `squeeze generate --seed first_seed+s` gives."""
    from dataclasses import replace

    import torch

    from ..flux.sampling import seeded_noise

    def draw(sample: Sample, seeds: Sequence[int]) -> Sequence[Image]:
        references = _references(sample)
        channels = pipeline.vae.config.latent_channels
        noise = torch.cat(
            [seeded_noise(first_seed + seed, 1, channels, settings.height, settings.width) for seed in seeds]
        )
        asked = replace(settings, batch=len(seeds))
        return pipeline.generate(sample.text, references, asked, noise=noise).images

    return draw


def identity(settings: GenerationSettings) -> dict[str, Any]:
    """What the pictures of a run depend on, for `made_with`: every field of the settings but seed and batch.

    The gate is a list of its values, tau_1 and tau_2 first; None where the adapter's is meant.
    """
    fields = {name: value for name, value in vars(settings).items() if name not in _NOT_OF_A_RUN}
    return {**fields, "gate": None if settings.gate is None else list(astuple(settings.gate))}


def reading_ahead(pipeline: SqueezePipeline, settings: GenerationSettings) -> Ahead:
    """The MLLM reads the prompts of several samples at once; `with_pipeline` then finds them read."""

    from ..pipeline import asked

    def ahead(samples: Sequence[Sample]) -> None:
        # What cannot be read is said when its own pictures are to be made.
        with suppress(SqueezeError):
            pipeline.encode_ahead([asked(pipeline.config, one.text, _references(one), settings)] for one in samples)

    return ahead


def _references(sample: Sample) -> list[Image]:
    from .pictures import read

    references = []
    for path in sample.inputs:
        picture, problems = read(path)
        if picture is None:
            raise SqueezeError(f'The reference "{path}" {problems[0].text}. Replace the file.')
        references.append(picture)
    return references


def claim(folder: Path, benchmark: Benchmark, made_with: Mapping[str, Any]) -> None:
    """Write run.json, or check that the one there says the same. Raises `SqueezeError`."""
    folder.mkdir(parents=True, exist_ok=True)
    run = {"benchmark": benchmark.name, "source": benchmark.source, "notes": benchmark.notes, **made_with}
    run = json.loads(json.dumps(run, default=str))
    path = folder / RUN
    if not path.is_file():
        write_text(path, json.dumps(run, indent=1, ensure_ascii=False) + "\n")
        return
    earlier, now = _settings(read_run(folder)), _settings(run)
    earlier = _completed(earlier, now)
    keys = (earlier.keys() | now.keys()) - _MAY_CHANGE
    changed = sorted(key for key in keys if earlier.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise SqueezeError(
            f'"{folder}" holds pictures made with {key} = {earlier.get(key)!r}, and now it is {now.get(key)!r}. '
            "Give another --out, or the same settings."
        )


def check_made_for(folder: Path, benchmark: Benchmark, option: str) -> None:
    """Raise `SqueezeError` when a folder's run.json names another benchmark. Other tools' folders have none.

    option: the one that gave the folder, for the message.
    """
    made = read_run(folder).get("benchmark") if (folder / RUN).is_file() else None
    if isinstance(made, str) and made != benchmark.name:
        raise SqueezeError(f'"{folder}" holds pictures of {made}, not of {benchmark.name}. Give another {option}.')


def read_run(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises `SqueezeError` when it is not there or damaged."""
    path = folder / RUN
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(run, dict):
            return run
        reason = "it is no object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise SqueezeError(
        f'"{path}" cannot be read ({reason}). Give a folder made by squeeze eval generate, or use --images.'
    )


def _completed(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier version's settings in today's fields: what it did not know had the value of its default.

    `side` was both height and width. The long side of references followed from the models, which are compared
    by themselves.
    """
    from ..generation import GenerationSettings

    earlier = dict(earlier)
    side = earlier.pop("side", None)
    known = {"height": side, "width": side} if side is not None else {}
    known = {**identity(GenerationSettings()), "long_side": now.get("long_side"), **known}
    for name, value in known.items():
        if name in now:
            earlier.setdefault(name, value)
    gate, default = earlier.get("gate"), list(astuple(Gate()))
    if isinstance(gate, list) and len(gate) < len(default):
        earlier["gate"] = [*gate, *default[len(gate) :]]
    return earlier


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was made with, the models one by one."""
    models = run.get("models")
    return {**run, "models": None, **models} if isinstance(models, Mapping) else dict(run)


def _write(picture: Image, path: Path) -> None:
    with whole(path) as temporary:
        picture.save(temporary)


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
