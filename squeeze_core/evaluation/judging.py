"""An MLLM as a judge of identity: the paper's appendix I (DreamBench++'s concept preservation).

The judge sees the reference and the generated picture and answers with a whole number from 0 to 4. An answer
that is none is asked for again, and in the end counts as missing: a zero would be a verdict nobody gave.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..mllm.backbone import Backbone, Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

LOWEST, HIGHEST = 0, 4

# The paper's text, word by word.
INSTRUCTION = """### Task Definition
You will be provided with an image generated based on reference image.
As an experienced evaluator, your task is to evaluate the semantic consistency between the subject of the \
generated image and the reference image, according to the scoring criteria.

### Scoring Criteria
It is often compared whether two subjects are consistent based on four basic visual features:
1. Shape: Evaluate whether the main body outline, structure, and proportions of the generated image match those \
of the reference image. This includes the geometric shape of the main body, clarity of edges, relative sizes, and \
spatial relationships between various parts composing the main body.
2. Color: Comparing the accuracy and consistency of the main colors generated in the image with those of the \
reference image. This includes saturation, hue, brightness, and whether the distribution of colors is similar to \
that of the subject in the reference image.
3. Texture: Focus on the local parts of the RGB image, whether the generated image effectively captures fine \
details without appearing blurry, and whether it possesses the required realism, clarity, and aesthetic appeal. \
Please note that unless specifically mentioned in the text prompt, excessive abstraction and formalization of \
texture are not necessary.
4. Facial Features: If the evaluation is of a person or animal, facial features will greatly affect the judgment \
of image consistency, and you also need to focus on judging whether the facial area looks very similar visually.

### Scoring Range
You need to give a specific integer score based on the comprehensive performance of the visual features above, \
ranging from 0 to 4:
- Very Poor (0): No resemblance. The generated image's subject has no relation to the reference.
- Poor (1): Minimal resemblance. The subject falls within the same broad category but differs significantly.
- Fair (2): Moderate resemblance. The subject shows likeness to the reference with notable variances.
- Good (3): Strong resemblance. The subject closely matches the reference with only minor discrepancies.
- Excellent (4): Near-identical. The subject of the generated image is virtually indistinguishable from the \
reference.

### Input Format
Every time you will receive two images, the first image is a reference image, and the second image is the \
generated image.
Please carefully review each image of the subject.

### Output Format
Score: [Your Score]
You must adhere to the specified output format, which means that only the scores need to be output, excluding \
your analysis process."""

_GRADES = {"very poor": 0, "poor": 1, "fair": 2, "good": 3, "excellent": 4}
_LABEL = re.compile(r"\bscore\b\s*(?:is|:|：|=)\s*", re.IGNORECASE)
_VALUE = re.compile(
    r"""(?:(?P<grade>very\ poor|poor|fair|good|excellent)\s*[(:\-]?\s*)?  # "Good (3)"
        (?P<number>[0-4])\s*\)?
        (?:\s*(?:/|out\ of)\s*4(?!\d))?                                    # "3/4"
        (?!\s*[\d/%]|\s*[.,]\d|\s*(?:-|–|to|or|out\ of)\s*\d|\w)           # not "3.5", "3-4", "3/5"
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked.

    attempts: how often at most. The first answer is greedy; the others are drawn at `temperature`, each with a
        seed of its own, because a greedy answer would only repeat itself.
    side: both pictures are brought to side x side pixels, as DreamBench++ does. tiles: see `Prompt`.
    """

    attempts: int = 4
    temperature: float = 0.7
    side: int = 512
    tiles: int = 1
    max_new_tokens: int = 256

    def fingerprint(self) -> str:
        """Changes with anything that can change a verdict: for the cache and the report."""
        return hashlib.sha256(f"{INSTRUCTION}|{self!r}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Verdict:
    """score: 0 to 4, or None when no answer held one. answers: what was said, in order."""

    score: int | None
    answers: tuple[str, ...]


def parse_score(answer: str) -> int | None:
    """The whole number from 0 to 4 that an answer gives, or None when it gives none, or more than one.

    Thoughts in <think> are left out. Accepted are the asked-for "Score: 3" with the usual decoration ("[3]",
    "**3**", "3/4", "Good (3)"), and an answer that is nothing but the number. Never a number out of running text.
    """
    text = re.sub(r"<think>.*?(?:</think>|\Z)", "", answer, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"[*_`\[\]<>\"']", "", text).strip()
    labels = list(_LABEL.finditer(text))
    if not labels:
        return _value(text.rstrip(".! "), whole=True)
    values = {_value(text[label.end() :]) for label in labels}
    return values.pop() if len(values) == 1 else None


def judge(
    backbone: Backbone, reference: Image, generated: Image, settings: JudgeSettings = JudgeSettings()
) -> Verdict:
    """One judge's verdict on one pair. reference, generated: RGB of any size."""
    pair = tuple(picture.convert("RGB").resize((settings.side,) * 2) for picture in (reference, generated))
    prompt = Prompt(INSTRUCTION, pair, tiles=settings.tiles)
    answers: list[str] = []
    score = None
    while score is None and len(answers) < settings.attempts:
        answer = backbone.generate(
            prompt,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature if answers else 0.0,
            seed=len(answers),
        )
        answers.append(answer)
        score = parse_score(answer)
    return Verdict(score, tuple(answers))


def _value(text: str, whole: bool = False) -> int | None:
    found = _VALUE.fullmatch(text) if whole else _VALUE.match(text)
    if found is None:
        return None
    number, grade = int(found["number"]), found["grade"]
    return None if grade and _GRADES[grade.lower()] != number else number
