"""What is said of a scene, in the words of `grammar`: captions that tell all, prompts that tell no identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .figures import Identity
    from .scenes import Scene, Told


def description(identity: Identity, size: str | None = None) -> str:
    """ "a small red and blue striped star"; a plain pattern is not named."""
    words = [size] if size else []
    words.append(identity.colour)
    if identity.second is not None:
        words += ["and", identity.second, identity.pattern]
    words.append(identity.shape)
    return " ".join(("an" if words[0][0] in "aeiou" else "a", *words))


def caption(scene: Scene, told: Told) -> str:
    """A sentence that names every attribute: "a photo of a small red and blue striped star, at the top, ..."."""
    told_size = told.size if len(scene.subjects) == 1 else None
    names = []
    for subject in scene.subjects:
        name = description(subject.identity, told_size)
        names.append(f"{name} with {description(subject.carries)}" if subject.carries else name)
    return _sentence(names, told)


def introduction(scene: Scene, told: Told) -> str:
    """Who is meant, then the prompt: "a red and blue striped star. a photo of the small toy, at the top, ..."."""
    (subject,) = scene.subjects
    return f"{description(subject.identity)}. {prompt('one', [subject.identity], told)}"


def prompt(kind: str, identities: Sequence[Identity], told: Told) -> str:
    """A request that tells place, background, size, relation and style, and never who the subject is.

    In the reasoning case it names the kind of a secondary object, whose colour only the reference shows.
    """
    size = f"{told.size} " if told.size else ""
    if kind == "several":
        names = [f"the {size}toy of picture {number}" for number in range(1, len(identities) + 1)]
    elif kind == "reasoning":
        names = [f"the {size}{identities[0].shape} of the toy"]
    else:
        names = [f"the {size}toy"]
    return _sentence(names, told)


def _sentence(names: Sequence[str], told: Told) -> str:
    if told.relation is not None:
        subjects = f" {told.relation} ".join(names)
    elif len(names) > 1:
        subjects = f"{', '.join(names[:-1])} and {names[-1]}"
    else:
        subjects = names[0]
    start = f"{told.style} {subjects}" if told.style else subjects
    return ", ".join(part for part in (start, told.place, told.background) if part)
