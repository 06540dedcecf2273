"""What participants hand in -> votes. A file that does not fit is named, and the others still count."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from .building import Key

Score = Annotated[int, Field(strict=True, ge=1, le=10)]


class _Answer(BaseModel):
    question: str
    scores: dict[str, Score]


class _Sheet(BaseModel):
    format: Literal["squeeze user study answers"]
    version: Literal[1]
    study: str
    participant: str = Field(min_length=1)
    answers: list[_Answer]


@dataclass(frozen=True)
class Vote:
    """One score of one picture. score: 1 to 10."""

    participant: str
    question: str
    method: str
    score: int


@dataclass(frozen=True)
class Votes:
    """votes: sorted by participant, question and method. problems: a sentence for everything left out."""

    votes: tuple[Vote, ...]
    problems: tuple[str, ...]


def read_answers(paths: Iterable[Path], key: Key) -> Votes:
    """The votes of all files. Of two files of one participant the later in order of names counts, once."""
    by_participant: dict[str, tuple[Path, list[Vote]]] = {}
    problems: list[str] = []
    for path in sorted(paths):
        try:
            sheet = parse_sheet(path.read_bytes())
        except OSError as error:
            problems.append(f"{path.name}: cannot be read ({error.strerror}).")
            continue
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        if sheet.study != key.study:
            problems.append(f"{path.name}: answers of another study ({sheet.study}, not {key.study}).")
            continue
        votes, wrong = _votes(sheet, key)
        problems += [f"{path.name}: {text}" for text in wrong]
        if sheet.participant in by_participant:
            earlier = by_participant[sheet.participant][0].name
            problems.append(f"{path.name}: the same participant as {earlier}, which is left out.")
        by_participant[sheet.participant] = (path, votes)
    votes = [vote for _, own in by_participant.values() for vote in own]
    return Votes(
        tuple(sorted(votes, key=lambda vote: (vote.participant, vote.question, vote.method))), tuple(problems)
    )


def parse_sheet(text: bytes | str) -> _Sheet:
    """One file's contents. Raises ValueError with a phrase that says what is wrong."""
    try:
        return _Sheet.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{place}: {first['msg']}.") from None
    except (ValueError, RecursionError):
        raise ValueError("no JSON.") from None


def _votes(sheet: _Sheet, key: Key) -> tuple[list[Vote], list[str]]:
    votes: dict[tuple[str, str], Vote] = {}
    wrong = []
    for answer in sheet.answers:
        case = key.questions.get(answer.question)
        if case is None:
            wrong.append(f"there is no question {answer.question}.")
            continue
        for picture, score in answer.scores.items():
            method = case.pictures.get(picture)
            if method is None:
                wrong.append(f"question {answer.question} has no picture {picture}.")
                continue
            if (case.name, method) in votes:
                wrong.append(f"question {answer.question} is answered twice; the first answer counts.")
                continue
            votes[case.name, method] = Vote(sheet.participant, case.name, method, score)
    wanted = sum(len(case.pictures) for case in key.questions.values())
    if len(votes) < wanted:
        wrong.append(f"{wanted - len(votes)} of {wanted} scores are missing.")
    return list(votes.values()), wrong
