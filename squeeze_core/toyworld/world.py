"""The toy world on disk: written once, checked on every use, never half there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from ..adapter import Adapter
from ..errors import SqueezeError
from ..files import cache_folder
from ..flux import layouts as bfl
from . import adapter, flux, mllm, vae
from .folding import unfolded
from .tokenizer import write_json

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from ..mllm.backbone import Backbone

VERSION = 8  # of the weights and files; a change of either makes a new folder
NOTICES = {
    True: "tiny models that have seen toys only: give them the toy world's pictures and words",
    False: "untrained weights: expect noise-like pictures; this shows that the machinery runs",
}

# Trained weights that belong to the package, bf16. `build` takes them once all parts are there.
SHIPPED = Path(__file__).parent / "trained"
PARTS = ("vae", "mllm", "flux", "adapter")
_MANIFEST = "manifest.json"
_KIND = "squeeze toy world"


@dataclass(frozen=True)
class ToyWorldPaths:
    """Where the parts lie.

    flux, vae: diffusers folders. flux_file: the same FLUX in the published key layout, as hosts load it.
    mllm: a folder of InternVL3's `-hf` layout. adapter: an adapter file for these models.
    """

    folder: Path

    @property
    def flux(self) -> Path:
        return self.folder / "flux"

    @property
    def flux_file(self) -> Path:
        return self.folder / "toy_flux.safetensors"

    @property
    def vae(self) -> Path:
        return self.folder / "vae"

    @property
    def vae_file(self) -> Path:
        return self.vae / "diffusion_pytorch_model.safetensors"

    @property
    def mllm(self) -> Path:
        return self.folder / "mllm"

    @property
    def adapter(self) -> Path:
        return self.folder / "toy_adapter.safetensors"


@dataclass(frozen=True)
class ToyWorld:
    """The tiny models in memory, float32 on the CPU. trained: whether pictures mean anything."""

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    mllm: Backbone
    adapter: Adapter
    paths: ToyWorldPaths
    trained: bool = False

    @property
    def notice(self) -> str:
        """What to expect of its pictures."""
        return NOTICES[self.trained]


def default_folder(seed: int = 0) -> Path:
    """In the cache folder, one a version and seed."""
    name = f"toyworld-{VERSION}" + (f"-seed{seed}" if seed else "")
    return cache_folder() / name


def build(folder: str | Path | None = None, seed: int = 0) -> ToyWorldPaths:
    """Write the toy world, about 80 MB, unless a sound one of this version and seed is there.

    folder: None means `default_folder(seed)`. The files appear together, by renaming a folder, so builders
    may run at the same time. The same seed gives the same bytes on one machine, and the global random numbers
    stay as they were. Raises `SqueezeError` when the folder holds something else.
    """
    folder = Path(folder) if folder is not None else default_folder(seed)
    folder = folder.expanduser().absolute()
    if not is_complete(folder, seed):
        _check_replaceable(folder)
        temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            _write(temporary, seed, SHIPPED if seed == 0 and is_whole(SHIPPED) else None)
            _place(temporary, folder, seed)
        except (OSError, SafetensorError) as error:
            raise SqueezeError(
                f'The toy world cannot be written to "{folder}" ({getattr(error, "strerror", None) or error}). '
                "Free some room there, or choose another folder."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return ToyWorldPaths(folder)


def assemble(folder: str | Path, weights: str | Path, seed: int = 0) -> ToyWorldPaths:
    """Write a toy world with the trained parts that a folder of weights has, the others untrained.

    weights: any of vae, mllm, flux and adapter, .safetensors each. A toy world that was in `folder` is replaced;
    raises `SqueezeError` when something else is there.
    """
    folder = Path(folder).expanduser().absolute()
    _check_replaceable(folder)
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        _write(temporary, seed, Path(weights))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ToyWorldPaths(folder)


def is_trained(paths: ToyWorldPaths) -> bool:
    """Whether all parts of a toy world that was written have trained weights."""
    return bool((_manifest(paths.folder) or {}).get("trained"))


def is_whole(weights: Path) -> bool:
    """Whether a folder of weights has every part."""
    return all((weights / f"{part}.safetensors").is_file() for part in PARTS)


def load(folder: str | Path | None = None, seed: int = 0) -> ToyWorld:
    """Build the toy world if need be and load all of it."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from ..adapter import load as load_adapter
    from ..mllm.loading import load as load_mllm

    paths = build(folder, seed)
    return ToyWorld(
        transformer=FluxTransformer2DModel.from_pretrained(paths.flux, local_files_only=True).eval(),
        vae=AutoencoderKL.from_pretrained(paths.vae, local_files_only=True).eval(),
        mllm=load_mllm(paths.mllm, device="cpu"),
        adapter=load_adapter(paths.adapter),
        paths=paths,
        trained=is_trained(paths),
    )


def is_complete(folder: Path, seed: int = 0) -> bool:
    """Whether a toy world of this version and seed is there with every byte as it was written."""
    manifest = _manifest(folder)
    if manifest is None or (manifest.get("version"), manifest.get("seed")) != (VERSION, seed):
        return False
    try:
        return all(_digest(folder / name) == digest for name, digest in manifest["files"].items())
    except OSError:
        return False


def _write(folder: Path, seed: int, weights: Path | None = None) -> None:
    paths = ToyWorldPaths(folder)
    transformer = trained_state(weights, "flux") or flux.state(seed)
    _save_for_diffusers(paths.flux, "FluxTransformer2DModel", flux.CONFIG, transformer)
    _save({key: tensor.contiguous() for key, tensor in bfl.to_bfl(transformer).items()}, paths.flux_file)
    autoencoder = trained_state(weights, "vae")
    config = vae.CONFIG if autoencoder is None else vae.TRAINED_CONFIG
    _save_for_diffusers(paths.vae, "AutoencoderKL", config, autoencoder or vae.state(seed))
    mllm.write(paths.mllm, seed, trained_state(weights, "mllm"))
    if weights is not None and (weights / "adapter.safetensors").is_file():
        shutil.copyfile(weights / "adapter.safetensors", paths.adapter)
    else:
        adapter.write(paths.adapter, paths.mllm, seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    trained = weights is not None and is_whole(weights)
    manifest = {
        "kind": _KIND,
        "version": VERSION,
        "seed": seed,
        "trained": trained,
        "note": NOTICES[trained],
        "files": {path.relative_to(folder).as_posix(): _digest(path) for path in files},
    }
    write_json(folder / _MANIFEST, manifest)


def trained_state(weights: Path | None, part: str) -> dict[str, torch.Tensor] | None:
    """The trained state dict of a part, float32, or None where there is none."""
    from safetensors.torch import load_file

    path = None if weights is None else weights / f"{part}.safetensors"
    if path is None or not path.is_file():
        return None
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    return unfolded(state) if part == "flux" else state


def _save_for_diffusers(folder: Path, kind: str, config: dict, state: dict[str, torch.Tensor]) -> None:
    """A folder that diffusers loads; written without it, because a host may not have it."""
    folder.mkdir()
    write_json(folder / "config.json", {"_class_name": kind, **config})
    _save(state, folder / "diffusion_pytorch_model.safetensors")


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, path, metadata={"format": "pt"})


def _check_replaceable(folder: Path) -> None:
    """Only an empty folder or a broken toy world may make room: never what a user keeps there."""
    if folder.is_dir() and any(folder.iterdir()) and _manifest(folder) is None:
        raise SqueezeError(f'"{folder}" is not empty and is no toy world. Choose an empty or a new folder for it.')
    if folder.exists() and not folder.is_dir():
        raise SqueezeError(f'"{folder}" is a file. Choose an empty or a new folder for the toy world.')


def _place(temporary: Path, folder: Path, seed: int) -> None:
    """Rename into place. Whoever comes first wins; the other's equal files are thrown away."""
    for _ in range(8):
        try:
            if sys.platform == "win32" and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # elsewhere a rename replaces an empty folder
            os.rename(temporary, folder)
            return
        except OSError:
            if is_complete(folder, seed):
                return
            if _manifest(folder) is None:
                raise
        aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            continue  # another builder moved the broken one away
        if is_complete(aside, seed):  # another builder put a sound one there in between
            try:
                os.rename(aside, folder)
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
            continue
        shutil.rmtree(aside, ignore_errors=True)
    raise SqueezeError(f'The toy world in "{folder}" is being rewritten again and again. Try again later.')


def _manifest(folder: Path) -> dict | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == _KIND else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
