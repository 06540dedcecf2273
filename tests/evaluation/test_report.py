"""Reports: complete, honest about what is published and what was measured, readable again."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageOps

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation import report
from squeeze_core.evaluation.cache import Cache
from squeeze_core.evaluation.generated_files import collect
from squeeze_core.evaluation.measures import dreambench
from squeeze_core.evaluation.pictures import Problem, read
from squeeze_core.evaluation.published import TABLES
from squeeze_core.evaluation.results import Metric, PictureScore, Result

PAPER = Path(__file__).with_name("paper_tables.tsv")


@pytest.fixture(scope="module")
def result(pictures, benchmark_data, dino, clip):
    generated, problems = collect(pictures, benchmark_data)
    found = dreambench.score(generated, benchmark_data, dino, clip, Cache())
    found.problems += problems
    return found


def test_our_row_stands_among_published_ones_that_are_marked(result):
    text = report.to_markdown(result)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| USO | 0.7478 | 0.8263 | 0.3213 | published |" in rows
    ours = [row for row in rows if "measured here" in row]
    assert len(ours) == 1 and f"{result.mean('dino_i'):.4f}" in ours[0] and "published" not in ours[0]
    published = [row for row in rows if row.endswith("| published |")]
    assert len(published) == len(TABLES["1"].rows)


def test_what_is_not_the_whole_benchmark_says_so(result):
    assert result.asked == 32 and "**not the full protocol**" in report.to_markdown(result)


def test_every_report_names_backbones_crop_and_weights(result, dino, clip):
    text = report.to_markdown(result)
    for spec in (dino.spec, clip.spec):
        assert spec.name in text and spec.weights[:16] in text
    assert "resize 64, crop 56, " in text and "interpolation bicubic" in text


def test_the_json_holds_every_picture_and_can_be_read_again(tmp_path, result, pictures):
    written = report.write(result, tmp_path / "out", pictures)
    assert [path.suffix for path in written] == [".json", ".md", ".png"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    again = report.read(written[0])
    assert again.pictures == result.pictures or [p.scores for p in again.pictures] == [
        p.scores for p in result.pictures
    ]
    assert again.metrics == result.metrics and again.problems == result.problems
    data = json.loads(written[0].read_text())
    assert data["summary"]["dino_i"]["mean"] == pytest.approx(result.mean("dino_i"))
    assert set(data["by_subject"]) == {"dog6", "rc_car", "vase"} and set(data["by_category"]) == {"live", "object"}
    assert "torch" in data["versions"]


def test_worst_cases_stand_beside_their_references(result, pictures, benchmark_data):
    with_them, without = (report.worst_cases(result, pictures, asked) for asked in (benchmark_data, None))
    row = report.worst(result, result.metrics[0], 1)[0]
    generated, reference = (
        read(path)[0] for path in (pictures / row.file, benchmark_data.find(row.subject, row.prompt).inputs[0])
    )
    left, top, cell = 20, 84, 224  # the sheet's first cell
    side = generated.height // 3
    scale = cell / (generated.width + side)
    above = (cell - generated.height * scale) / 2
    place = (
        left + cell - 1 - round(side * scale),
        top + round(above),
        left + cell,
        top + round(above + side * scale),
    )
    wanted = ImageOps.pad(reference, (side, side), color="white").resize((8, 8))
    shown, other = (sheet.crop(place).resize((8, 8)) for sheet in (with_them, without))
    differences = [np.abs(np.asarray(each, float) - np.asarray(wanted, float)).mean() for each in (shown, other)]
    assert differences[0] < 12 and differences[0] < differences[1] / 2


def test_json_has_no_nan(tmp_path):
    rows = [PictureScore("a", "s", 0, 0, {"m": float("nan"), "n": 1.0})]
    result = Result("x", (Metric("m", "M", True), Metric("n", "N", True)), rows)
    text = report.write(result, tmp_path)[0].read_text()
    assert "NaN" not in text and json.loads(text)["summary"]["m"]["mean"] is None
    assert "| -" in report.to_markdown(result) or "**-**" in report.to_markdown(result)


def test_two_runs_are_compared_case_by_case(result):
    better = Result(**{**vars(result), "label": "Better"})
    better.pictures = [
        PictureScore(**{**vars(row), "scores": {k: v + 0.1 for k, v in row.scores.items()}})
        for row in result.pictures
    ]
    text = report.to_markdown(better, result)
    assert f"| DINO-I | 0.1000 | [0.1000, 0.1000] | 0.250 | {len(result.pictures)} / 0 / 0 |" in text
    other = Result(**{**vars(better), "backbones": [{**result.backbones[0], "weights": "other"}]})
    assert "different models, and do not compare" in report.to_markdown(other, result)


def test_where_lower_is_better_a_lower_score_is_the_better_one():
    metric = Metric("recall", "Recall", higher_is_better=False)
    a, b = (Result("x", (metric,), [PictureScore("f", s, 0, 0, {"recall": v}) for s in "abc"]) for v in (0.9, 0.1))
    assert "| 3 / 0 / 0 |" in report.to_markdown(b, a)
    assert [row.score("recall") for row in report.worst(a, metric, 1)] == [0.9]


def test_the_worst_come_first(result):
    worst = report.worst(result, result.metrics[0], 3)
    scores = sorted(row.score("dino_i") for row in result.pictures)
    assert [row.score("dino_i") for row in worst] == scores[:3]


def test_problems_are_listed_and_cut(result):
    result = Result("x", result.metrics, result.pictures)
    result.problems = [Problem(f"{i}.png", "unreadable", "cannot be read", False) for i in range(70)]
    text = report.to_markdown(result)
    assert "- 3.png: cannot be read (not scored)" in text and "and 20 more" in text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "result": {}}', '{"format": 99}'])
def test_another_file_is_no_report(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SqueezeError):
        report.read(tmp_path / "a.json")


def test_groups_are_in_natural_order():
    rows = [PictureScore(f"{n}", f"{n}", 0, 0, {"m": 1.0}, category=f"{n} subjects") for n in (10, 2, 1)]
    assert list(report.by(Result("x", (Metric("m", "M", True),), rows), "category")) == [
        "1 subjects",
        "2 subjects",
        "10 subjects",
    ]


@pytest.mark.parametrize("key", [key for key in TABLES if key != "MSIC"])
def test_published_rows_are_as_printed(key):
    """Every row's numbers stand together on one line of the paper, in their order."""
    lines = [re.findall(r"\d+\.\d+|Not Applicable", line) for line in PAPER.read_text().splitlines()]
    for method, values in TABLES[key].rows:
        if key in ("3", "5") or key.startswith("E:"):
            continue  # printed with a column for each method, checked below
        numbers = list(values)
        assert any(
            [float(n) for n in line if n != "Not Applicable"][-len(numbers) :] == numbers for line in lines
        ), method
    if key in ("3", "5") or key.startswith("E:"):
        across = [values[0] for _, values in TABLES[key].rows]
        rows = [[None if n == "Not Applicable" else float(n) for n in line] for line in lines]
        assert across in rows
