"""A stand-in for MSIC, whose 1 to 12 subjects were never released: sets of DreamBench subjects, drawn by a rule.

MSIC's own scores do not compare with scores on this set, and every report says so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ..cases import Benchmark, Sample, Subject, require
from . import dreambench

NOTE = (
    "Stand-in set: MSIC was not released. Subjects of DreamBench were drawn by a fixed rule into groups of 1 to "
    "12; scores do not compare with those published on MSIC."
)
MOST, GROUPS, SEED = 12, 5, 2604
# Written for this set. {} is the list of subjects.
SCENES = (
    "{} together on a wooden table",
    "{} side by side on the beach",
    "{} on green grass in a park",
    "{} in the snow in front of a mountain",
    "{} on a rug in a living room",
)


def read(folder: Path, most: int = MOST, groups: int = GROUPS) -> Benchmark:
    """folder: DreamBench's. most: subjects in the largest group. groups: of each size. Raises `SqueezeError`.

    A group has no class twice, so that a prompt can name each of its subjects.
    """
    source = dreambench.read(folder)
    known = {sample.subject: sample.subjects[0] for sample in source.samples}
    benchmark = Benchmark("Multi-subject stand-in", [], 1, source=f"drawn from {source.source}", notes=[NOTE])
    benchmark.notes += source.notes
    draw = random.Random(SEED)
    for count in range(1, most + 1):
        for number in range(groups):
            subjects = _draw(draw, list(known.values()), count)
            if len(subjects) < count:
                benchmark.notes.append(f"There are not {count} classes of subjects; larger groups are left out.")
                require(benchmark.samples, "the stand-in set", folder)
                return benchmark
            text = SCENES[number % len(SCENES)].format(listed(subjects))
            if count == 1:
                text = text.replace(" together", "").replace(" side by side", "")
            group = f"{count:02d}_subjects_{number}"
            benchmark.samples.append(Sample(group, 0, text, tuple(subjects), f"{count} subjects"))
    require(benchmark.samples, "the stand-in set", folder)
    return benchmark


def listed(subjects: Sequence[Subject]) -> str:
    """ "a cat, a toy and an old can" of the subjects' words."""
    names = [_with_article(subject.words) for subject in subjects]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _with_article(words: str) -> str:
    if words.endswith("s") and not words.endswith("ss"):
        return words  # "glasses"
    return f"an {words}" if words[:1].lower() in tuple("aeiou") else f"a {words}"


def _draw(draw: random.Random, subjects: list[Subject], count: int) -> list[Subject]:
    """Subjects of different classes; fewer when there are not enough classes."""
    draw.shuffle(subjects)
    by_class: dict[str, Subject] = {}
    for subject in subjects:
        by_class.setdefault(subject.words, subject)
    return list(by_class.values())[:count]
