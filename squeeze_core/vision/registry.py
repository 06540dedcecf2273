"""Where the models of the measures lie on the disk, and exactly which ones they are.

Nothing is ever downloaded: a missing model is an error that holds the line to fetch it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import SqueezeError

Role = Literal["dino", "clip", "detector", "orientation"]


@dataclass(frozen=True)
class Known:
    """repository: what the paper's protocol uses. model_types: what config.json may say. file: the one to fetch."""

    repository: str
    model_types: tuple[str, ...]
    what: str
    file: str = ""


KNOWN: dict[Role, Known] = {
    "dino": Known("facebook/dino-vits16", ("vit",), "DINO ViT-S/16"),
    "clip": Known("openai/clip-vit-base-patch32", ("clip",), "CLIP ViT-B/32"),
    "detector": Known(
        "IDEA-Research/grounding-dino-base",
        ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit"),
        "an open-vocabulary detector",
    ),
    "orientation": Known("Viglong/Orient-Anything", (), "Orient Anything", "ronormsigma1/dino_weight.pt"),
}


@dataclass(frozen=True)
class BackboneSpec:
    """Everything about a model that a score depends on.

    weights: sha256 of the weights file. revision: commit of the repository where the folder tells it.
    preprocessing: resize, crop, interpolation, mean, std. architecture: sizes that tell one variant from another.
    """

    role: str
    name: str
    model_type: str
    repository: str
    revision: str
    weights: str
    preprocessing: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A short name for caches: the same model with the same preprocessing has the same key."""
        text = json.dumps([self.model_type, self.weights, self.preprocessing], sort_keys=True)
        return f"{self.role}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# What the published scores were measured with, as `BackboneSpec.architecture` tells it.
STANDARD: dict[str, dict[str, Any]] = {
    "dino": {"width": 384, "layers": 12, "patch": 16, "side": 224},
    "clip": {"width": 768, "layers": 12, "patch": 32, "side": 224},
    "orientation": {"width": 1024, "layers": 24, "patch": 14},
}


def deviates(spec: Mapping[str, Any]) -> str:
    """A sentence when a backbone is another one than the published scores' (a spec's dictionary), else nothing."""
    standard, sizes = STANDARD.get(spec["role"]), spec.get("architecture") or {}
    if standard is None or all(sizes.get(key) == value for key, value in standard.items()):
        return ""
    what = KNOWN[spec["role"]].what
    return f"{spec['name']} is not {what}, with which the published scores were measured: the two do not compare."


def locate(role: Role, roots: str | Path | Iterable[str | Path], given: Path | None = None) -> Path:
    """The folder of a model: the one given, or the first of its name below the roots or in the Hugging Face cache.

    Raises `SqueezeError` with the line that fetches it when there is none.
    """
    if role not in get_args(Role):
        raise SqueezeError(f'There is no backbone "{role}"; choose one of {", ".join(get_args(Role))}.')
    known = KNOWN[role]
    places = [Path(roots)] if isinstance(roots, (str, Path)) else [Path(root) for root in roots]
    if given is not None:
        if not given.exists():
            raise SqueezeError(f'There is nothing at "{given}" for {known.what}. {fetch_line(role, given.parent)}')
        return given
    owner, _, name = known.repository.partition("/")
    for root in places:
        for folder in (root / name, root / owner / name, root / role):
            if _holds(folder, known):
                return folder
    cached = _in_hub_cache(known.repository)
    if cached is not None and _holds(cached, known):
        return cached
    where = places[0] if places else Path("models")
    raise SqueezeError(f"{known.what} is not in {' or '.join(map(str, places))}. {fetch_line(role, where)}")


def fetch_line(role: Role, root: Path) -> str:
    """The sentence with the command that fetches a model."""
    known = KNOWN[role]
    place = root / known.repository.partition("/")[2]
    quoted = f'"{place}"' if " " in str(place) else str(place)
    file = f" {known.file}" if known.file else ""
    return f"Fetch it: hf download {known.repository}{file} --local-dir {quoted}"


def candidates(role: Role, roots: Iterable[str | Path]) -> list[Path]:
    """All folders up to two levels below the roots that hold a model for this role, for lists to choose from."""
    known = KNOWN[role]
    found: dict[Path, None] = {}
    for root in map(Path, roots):
        for folder in [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]:
            if folder.is_dir() and folder.parent not in found and _holds(folder, known):
                found.setdefault(folder, None)
    return list(found)


def read_config(folder: Path, role: Role) -> dict[str, Any]:
    """config.json of a model for this role. Raises `SqueezeError`."""
    known = KNOWN[role]
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise SqueezeError(
            f'"{folder}" has no readable config.json and is not {known.what}. {fetch_line(role, folder.parent)}'
        ) from error
    if found not in known.model_types:
        raise SqueezeError(
            f'"{folder}" holds a model of type {found!r}; {known.what} has {" or ".join(known.model_types)}. '
            f"{fetch_line(role, folder.parent)}"
        )
    return config


def weight_file(folder: Path, role: Role) -> Path:
    """The one file of weights in a folder. Raises `SqueezeError`."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    raise SqueezeError(
        f'"{folder}" holds no model.safetensors or pytorch_model.bin. {fetch_line(role, folder.parent)}'
    )


def describe(
    folder: Path,
    role: Role,
    file: Path,
    model_type: str,
    preprocessing: dict[str, Any],
    architecture: dict[str, Any] | None = None,
) -> BackboneSpec:
    """The spec of a model that is about to be loaded. Reads the whole weights file once, for its hash."""
    stat = file.stat()
    digest = _hashed(str(file.resolve()), stat.st_size, stat.st_mtime_ns)
    name = folder.name if folder.parent.name != "snapshots" else KNOWN[role].repository.partition("/")[2]
    repository, revision = _origin(folder, file)
    return BackboneSpec(role, name, model_type, repository, revision, digest, preprocessing, architecture or {})


def _holds(folder: Path, known: Known) -> bool:
    if known.file:
        return any((folder / part).is_file() for part in (known.file, Path(known.file).name))
    try:
        return (
            json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") in known.model_types
        )
    except (OSError, ValueError, AttributeError):
        return False


def _in_hub_cache(repository: str) -> Path | None:
    """The newest snapshot that an earlier `hf download` left in the shared cache."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{repository.replace('/', '--')}"
    try:
        snapshot = cache / "snapshots" / (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return snapshot if snapshot.is_dir() else None


def _origin(folder: Path, file: Path) -> tuple[str, str]:
    """(repository, revision) as the folder's own traces tell; empty strings where they do not."""
    for parent in (folder, *folder.parents):
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            revision = folder.relative_to(parent).parts[0]
            return parent.parent.name.removeprefix("models--").replace("--", "/"), revision
    note = folder / ".cache" / "huggingface" / "download" / f"{file.relative_to(folder).as_posix()}.metadata"
    try:
        return "", note.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, ValueError):
        return "", ""


@lru_cache(maxsize=32)
def _hashed(path: str, size: int, changed: int) -> str:
    from ..files import file_hash

    return file_hash(Path(path))
