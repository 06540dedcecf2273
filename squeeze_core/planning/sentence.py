"""Reads an instruction for the rule: which pictures it names, how, and which words of place stand between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from ..errors import SqueezeError
from .plan import PlanRelation, Relation

MOST_CHARACTERS = 4000

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
_PICTURE = r"(?:picture|image|photo|photograph|reference)"
_WHICH = (
    rf"(?:\b{_PICTURE}\s+#?(?P<number>\d+|{'|'.join(_NUMBERS)})\b"
    rf"|\b(?:the\s+)?(?P<ordinal>{'|'.join(_ORDINALS)})\s+{_PICTURE}\b)"
)
_FROM = r"(?:as\s+)?(?:seen\s+|shown\s+)?(?:of|from|in)\s+(?:the\s+)?"
_NO_NAME = r"(?:the|an?|my|his|her|their|of|and|left|right|top|bottom|front|back|middle|side)\b"
# "the red hat of picture 2", "the cat (from the first image)", "picture 3".
_MENTION = re.compile(
    rf"(?:\b(?:the|an?|my|his|her|their)\s+(?P<name>(?:(?!{_NO_NAME})[\w'-]+\s+){{1,6}}?)\(?{_FROM})?{_WHICH}\)?",
    re.IGNORECASE,
)
_SOURCE = re.compile(rf",?\s*\(?\b{_FROM}{_WHICH}\)?", re.IGNORECASE)
_BARE = re.compile(_WHICH, re.IGNORECASE)
# The longest first: "in front of" holds "on" of nothing, but "on top of" begins with "on".
_RELATIONS: tuple[tuple[str, Relation], ...] = (
    (r"in\s+front\s+of|before", "in front of"),
    (r"behind|at\s+the\s+back\s+of", "behind"),
    (r"(?:(?:to|on|at)\s+the\s+)?left\s+(?:side\s+)?of", "left of"),
    (r"(?:(?:to|on|at)\s+the\s+)?right\s+(?:side\s+)?of", "right of"),
    (r"on\s+top\s+of|above|over|atop", "above"),
    (r"below|under|underneath|beneath", "below"),
    (r"next\s+to|beside|near|alongside", "next to"),
    (r"inside|within|into|in", "inside"),
    (r"holding|holds|carrying|carries", "holding"),
    (r"facing|faces|looking\s+at|looks\s+at", "facing"),
    (r"on|upon", "on"),
)
_BETWEEN = re.compile(r"\b(?:between|in\s+the\s+middle\s+of)\s*$", re.IGNORECASE)
_PLACE_VERBS = re.compile(r"\s*\b(?:is|are|stands?|standing|sits?|sitting|lies|lying)\b\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """A place in the instruction that names a picture. name: the words before it, "red hat", perhaps none."""

    picture: int
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What the rule reads.

    before: words ahead of the first subject, "a photo of". names: picture number -> the subject's name.
    relations: between numbers of pictures. scene: words after the last subject, "on a beach".
    """

    before: str
    names: dict[int, str]
    relations: tuple[PlanRelation, ...]
    scene: str


def checked_instruction(instruction: str) -> str:
    """Without the spaces around it. Raises `SqueezeError` when it is empty, too long, or no text."""
    text = instruction.strip()
    if not text:
        raise SqueezeError("The instruction is empty: say what the new picture should show.")
    if len(text) > MOST_CHARACTERS:
        raise SqueezeError(
            f"The instruction has {len(text):,} characters; a plan reads {MOST_CHARACTERS:,}. Shorten it."
        )
    if any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
        raise SqueezeError("The instruction holds half of a sign (a lone surrogate). Type or paste it again.")
    return text


def read(instruction: str) -> Reading:
    """An instruction as `checked_instruction` gives it."""
    mentions = _mentions(instruction)
    if not mentions:
        return Reading("", {}, (), instruction.strip(" ,.;:"))
    names: dict[int, str] = {}
    for mention in mentions:
        names[mention.picture] = names.get(mention.picture) or mention.name
    before = instruction[: mentions[0].start].strip(" ,.;:")
    scene = instruction[mentions[-1].end :].strip(" ,.;:")
    return Reading(before, names, tuple(_relations(instruction, mentions)), without_mentions(scene))


def mentions_picture(text: str) -> bool:
    return _BARE.search(text) is not None


def pictures_named(text: str) -> list[int]:
    """The numbers of the pictures that a text names, in its order, as often as it does."""
    return [_picture(match) for match in _BARE.finditer(text)]


def without_mentions(text: str) -> str:
    """ "the hat of picture 2 on a dog" -> "the hat on a dog"."""
    text = _BARE.sub("it", _SOURCE.sub("", text))
    return " ".join(text.split()).strip(" ,;:")


def _mentions(text: str) -> list[Mention]:
    return [
        Mention(_picture(match), " ".join((match["name"] or "").split()), match.start(), match.end())
        for match in _MENTION.finditer(text)
    ]


def _picture(match: re.Match[str]) -> int:
    """Of a match of _WHICH."""
    if match["number"] is None:
        return _ORDINALS.index(match["ordinal"].lower()) + 1
    word = match["number"].lower()
    return int(word) if word.isdigit() else _NUMBERS.index(word) + 1


def _relations(text: str, mentions: list[Mention]) -> list[PlanRelation]:
    """From the words between one mention and the next; "1 between 2 and 3" stands between them."""
    found: list[PlanRelation] = []
    for i, (first, second) in enumerate(pairwise(mentions)):
        if first.picture == second.picture:
            continue
        words = text[first.end : second.start]
        if _BETWEEN.search(words) and i + 2 < len(mentions) and len({m.picture for m in mentions[i : i + 3]}) == 3:
            third = mentions[i + 2]
            found += [_relation(second, "left of", first), _relation(first, "left of", third)]
            continue
        if i > 0 and _BETWEEN.search(text[mentions[i - 1].end : first.start]):
            continue  # the "and" of "between 2 and 3"
        word = _word(words)
        if word is not None and (relation := _relation(first, word, second)) not in found:
            found.append(relation)
    return found


def _relation(first: Mention, word: Relation, second: Mention) -> PlanRelation:
    return PlanRelation(subject=first.picture, relation=word, object=second.picture)


def _word(words: str) -> Relation | None:
    """The relation that stands between two mentions; None where a sentence or an enumeration goes on."""
    words = _PLACE_VERBS.sub(" ", words).strip()
    for pattern, relation in _RELATIONS:
        if re.search(rf"(?:^|\b)(?:{pattern})$", words, re.IGNORECASE):
            return relation
    return None
