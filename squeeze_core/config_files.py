"""A config as people write it: a YAML file, what it `extends`, `key=value` changes; checked before all else."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from .errors import SqueezeError

Config = TypeVar("Config", bound=BaseModel)


def read(path: str | Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML config, with what it `extends` beneath it and `key=value` changes on top.

    changes: such as "steps=100", "dla.lap.blocks=2", "data.0.folder=/data/UNO-1M"; values are YAML.
        "extends=FILE" puts another config beneath, in place of the one that the file names: stage 2 of an
        ablation is stage 2 on top of the ablation.
    Raises `SqueezeError` for a file or a change that does not read.
    """
    bases = [change.partition("=")[2] for change in changes if change.startswith("extends=")]
    values = read_yaml(Path(path), base=Path(bases[-1]).expanduser().resolve() if bases else None)
    return changed(values, [change for change in changes if not change.startswith("extends=")])


def checked(values: dict[str, Any], kind: type[Config], tags: Sequence[str] = ()) -> Config:
    """Raises `SqueezeError` for the first thing that is wrong, with its key, and what is near an unknown one.

    tags: see `said_plainly`.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SqueezeError(said_plainly(error, kind, tags)) from error


def read_yaml(path: Path, above: tuple[Path, ...] = (), base: Path | None = None) -> dict[str, Any]:
    """A YAML mapping with the one that its `extends` names, relative to it, merged beneath. Lists replace.

    base: another one instead of that.
    """
    import yaml

    path = path.expanduser().resolve()
    if path in above:
        raise SqueezeError(f'"{path}" extends itself by way of "{above[-1].name}". Remove one extends.')
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SqueezeError(f'There is no config "{path}". The shipped ones lie in configs/.') from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SqueezeError(f'The config "{path}" cannot be read as YAML ({error}).') from error
    if not isinstance(values, dict):
        raise SqueezeError(f'The config "{path}" must be a mapping of keys to values.')
    extends = values.pop("extends", None)
    if base is None and extends is not None:
        base = path.parent / str(extends)
    return values if base is None else merged(read_yaml(base, (*above, path)), values)


def changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The values with `a.b=value` changes applied. Raises `SqueezeError` for one that does not read."""
    import yaml

    values = merged(values, {})
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise SqueezeError(f'"{change}" is no change of the config. Write key=value, such as steps=100.')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SqueezeError(f'The value of "{change}" cannot be read as YAML ({error}).') from error
        _put(values, key.split("."), value, key)
    return values


def _put(values: Any, parts: list[str], value: Any, key: str) -> None:
    first, *rest = parts
    if isinstance(values, list):
        if not first.isdigit() or int(first) >= len(values):
            raise SqueezeError(f'"{key}" names entry {first} of a list of {len(values)}. Count from 0.')
        at: Any = int(first)
    elif isinstance(values, dict):
        at = first
    else:
        raise SqueezeError(f'"{key}" reaches into {values!r}, which has no parts. Check the key.')
    if not rest:
        values[at] = value
        return
    if isinstance(values, dict) and values.get(at) is None:
        values[at] = {}
    _put(values[at], rest, value, key)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of base with mappings merged; anything else in `over` replaces."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def said_plainly(error: ValidationError, kind: type[BaseModel], tags: Sequence[str] = ()) -> str:
    """The first thing that is wrong, with its key. tags: of unions, which are no keys."""
    first = error.errors()[0]
    where = [part for part in first["loc"] if part not in tags]  # a tag of the kind, not a key
    key = ".".join(str(part) for part in where)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = difflib.get_close_matches(str(where[-1]), _known_keys(where[:-1], kind), 1, 0.5)
        hint = f'Did you mean "{".".join([*map(str, where[:-1]), near[0]])}"?' if near else "Remove it."
        return f'The config has the unknown key "{key}". {hint}'
    if first["type"] == "missing":
        return f'The config lacks "{key}". Add it to the file, or give {key}=... on the command line.'
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not key:
        return f"The config does not fit together: {message}."
    return f'The config\'s "{key}" is {first["input"]!r}: {message}.'


def _known_keys(where: Sequence[Any], root: type[BaseModel]) -> list[str]:
    """The keys that may stand at a place of the config."""
    kinds: list[Any] = [root]
    for part in where:
        if isinstance(part, int):
            continue
        kinds = [
            model
            for kind in kinds
            for name, annotation in _fields(kind).items()
            if name == part
            for model in _models_in(annotation)
        ]
    return [name for kind in kinds for name in _fields(kind)]


def _fields(kind: Any) -> dict[str, Any]:
    """Names and types of a pydantic model's fields, or of a dataclass's."""
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind)


def _models_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
