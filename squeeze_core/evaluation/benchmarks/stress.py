"""Stress prompts of the two kinds of appendix K.1: several instances of the subject, and long attribute lists.

The paper shows its own prompts in a figure only; these were written for this set, over DreamBench's subjects.
"""

from __future__ import annotations

from pathlib import Path

from ..cases import Benchmark, Sample, require
from . import dreambench

NOTE = "The prompts are of K.1's two kinds, but written for this set: the paper prints its own in a figure only."
# {} is the subject's class.
INSTANCES = (
    "two of the same {} side by side on a wooden table",
    "three of the same {} in a row on the beach",
    "four of the same {} on a green lawn, seen from above",
    "one large {} and one small {} of the same kind on a stone step",
    "a {} in front of a mirror that shows the same {} from behind",
)
ATTRIBUTES = (
    "a {} on a round blue rug, to its left a tall yellow lamp, to its right a stack of three red books, "
    "behind it a brick wall with a square window",
    "a {} on a wooden pier at sunset, with a small white sailing boat on the left, a grey lighthouse on the "
    "right and two orange clouds above",
    "a {} in a kitchen with green tiles, beside a copper kettle, a glass jar of pasta, a striped towel and a "
    "bowl with four lemons",
    "a {} in the snow beside a black bicycle with a brown basket full of pink flowers, under a street lamp "
    "with warm yellow light",
    "a {} on a glass shelf between a silver clock and a purple vase with one white tulip, in soft morning "
    "light, seen slightly from below",
)


def read(folder: Path) -> Benchmark:
    """folder: DreamBench's. Prompts 0 to 4 ask for several instances, 5 to 9 bind attributes."""
    source = dreambench.read(folder)
    benchmark = Benchmark("Stress prompts", [], 1, source=f"subjects of {source.source}", notes=[NOTE])
    benchmark.notes += source.notes
    for name in source.subjects:
        subject = source.of(name)[0].subjects[0]
        for number, text in enumerate(INSTANCES + ATTRIBUTES):
            category = "instances" if number < len(INSTANCES) else "attributes"
            prompt = text.replace("{}", subject.words)
            benchmark.samples.append(Sample(name, number, prompt, (subject,), category))
    require(benchmark.samples, "DreamBench", folder)
    return benchmark
