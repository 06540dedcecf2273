"""Votes -> a score a method, with intervals, and every pair of methods compared (the paper's Table 5).

What is drawn again for the intervals is the participant with all of their votes: people use a scale differently,
and votes of one person are not independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from ..published import TABLES
from ..statistics import Comparison, Interval, bootstrap, compare
from .answers import Vote, Votes

# Table 5 of the paper: 30 participants, 1,500 votes, 10 samples from DreamBench and XVerseBench.
PUBLISHED = {method: values[0] for method, values in TABLES["5"].rows}


@dataclass(frozen=True)
class MethodScore:
    """score: mean of all votes, 1 to 10, and its interval. mean_rank: 1 is best, ties share a rank."""

    method: str
    score: Interval
    votes: int
    mean_rank: float


@dataclass(frozen=True)
class Findings:
    """methods: best first. comparisons: (a, b) -> b minus a, over the pictures of one question by one person."""

    methods: tuple[MethodScore, ...]
    comparisons: dict[tuple[str, str], Comparison]
    participants: int
    questions: int
    votes: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "methods": [asdict(method) for method in self.methods],
            "comparisons": [{"a": a, "b": b, **asdict(c)} for (a, b), c in self.comparisons.items()],
            "participants": self.participants,
            "questions": self.questions,
            "votes": self.votes,
            "problems": list(self.problems),
        }


def analyse(votes: Votes, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Findings:
    """Methods without a vote are left out. The same votes and seed give the same intervals."""
    by_method: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes.votes:
        by_method[vote.method].append(vote)
    ranks = _mean_ranks(votes.votes)
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    scores = []
    for method, own in by_method.items():
        interval = bootstrap([float(v.score) for v in own], [v.participant for v in own], **options)
        assert interval is not None  # a method is here because it has votes
        scores.append(MethodScore(method, interval, len(own), ranks[method]))
    comparisons = {}
    for a, b in combinations(sorted(by_method), 2):
        cases = [{(v.participant, v.question): float(v.score) for v in by_method[method]} for method in (a, b)]
        found = compare(*cases, **options)
        if found is not None:
            comparisons[a, b] = found
    return Findings(
        tuple(sorted(scores, key=lambda score: (-score.score.mean, score.method))),
        comparisons,
        len({vote.participant for vote in votes.votes}),
        len({vote.question for vote in votes.votes}),
        len(votes.votes),
        votes.problems,
    )


def markdown(findings: Findings) -> str:
    """The report: our table, the comparisons, the published scores apart (another study, other pictures)."""
    percent = f"{findings.methods[0].score.level:.0%}" if findings.methods else "95%"
    lines = [
        "# User study",
        "",
        f"{findings.participants} participants, {findings.questions} questions, {findings.votes} votes, 1 to 10. "
        f"Intervals: {percent}, by drawing participants again.",
        "",
        "| method | score | interval | mean rank | votes |",
        "|---|---|---|---|---|",
    ]
    for row in findings.methods:
        interval = f"{row.score.low:.2f} to {row.score.high:.2f}"
        if row.score.groups == 1 and row.votes == 1:
            interval = "one vote"
        lines.append(f"| {row.method} | {row.score.mean:.2f} | {interval} | {row.mean_rank:.2f} | {row.votes} |")
    if findings.comparisons:
        lines += ["", "| compared | difference | interval | p | better / worse / equal |", "|---|---|---|---|---|"]
        for (a, b), c in findings.comparisons.items():
            lines.append(
                f"| {b} - {a} | {c.difference:+.2f} | {c.low:+.2f} to {c.high:+.2f} | {c.p_value:.3f} "
                f"| {c.wins} / {c.losses} / {c.ties} |"
            )
    published = ", ".join(f"{method} {score}" for method, score in PUBLISHED.items())
    lines += [
        "",
        f"Published (Table 5; 30 participants, 1,500 votes, pictures of their own): {published}. Scores of two "
        "studies do not compare; differences within one study do.",
    ]
    if findings.problems:
        lines += ["", "## Left out or odd", "", *(f"- {problem}" for problem in findings.problems)]
    return "\n".join(lines) + "\n"


def _mean_ranks(votes: Sequence[Vote]) -> dict[str, float]:
    sheets: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        sheets[vote.participant, vote.question].append(vote)
    ranks: dict[str, list[float]] = defaultdict(list)
    for sheet in sheets.values():
        for vote in sheet:
            above = sum(other.score > vote.score for other in sheet)
            equal = sum(other.score == vote.score for other in sheet)
            ranks[vote.method].append(above + (equal + 1) / 2)
    return {method: sum(own) / len(own) for method, own in ranks.items()}
