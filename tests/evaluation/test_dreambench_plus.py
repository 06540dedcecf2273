"""MLLM judges on DreamBench++: asked as the protocol says, counted honestly, cached by what they saw."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation import report
from squeeze_core.evaluation.benchmarks import read
from squeeze_core.evaluation.cache import Cache
from squeeze_core.evaluation.judging import JudgeSettings
from squeeze_core.evaluation.judging import judge as ask
from squeeze_core.evaluation.measures.dreambench_plus import AVERAGE, Judge, collect, score
from squeeze_core.mllm import load

from ..mllm import checkpoints

QUICK = JudgeSettings(attempts=2, max_new_tokens=4, side=56)


@pytest.fixture(scope="module")
def plus(tmp_path_factory):
    """Two animals, an object, a person and a style, with two prompts each, in DreamBench++'s own layout."""
    folder = tmp_path_factory.mktemp("data")
    rows = {"live_subject/animal/00": "kitten", "live_subject/animal/01": "Cotton-top Tamarin", "object/00": "mug",
            "live_subject/human/00": "man", "style/00": "ukiyo-e"}  # fmt: skip
    for number, (name, words) in enumerate(rows.items()):
        picture, caption = folder / "images" / f"{name}.jpg", folder / "captions" / f"{name}.txt"
        picture.parent.mkdir(parents=True, exist_ok=True)
        caption.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * number, 0, 90)).save(picture)
        caption.write_text(f"{words}\n{words} on a beach\n{words} in snow\n")
    return read("dreambench-plus", folder)


def fill(folder: Path, plus, name=lambda sample: f"{sample.subject}/{sample.prompt:02d}_0.png") -> Path:
    for number, sample in enumerate(plus.samples):
        path = folder / name(sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (0, 30 * number, 90)).save(path)
    return folder


@pytest.fixture(scope="module")
def made(plus, tmp_path_factory):
    return collect(fill(tmp_path_factory.mktemp("made"), plus), plus)[0]


@pytest.fixture(scope="module")
def mllm(tmp_path_factory):
    return load(checkpoints.internvl(tmp_path_factory.mktemp("mllm") / "tiny"), device="cpu")


class Scripted:
    """A real tiny MLLM whose words are put into its mouth: answers(number of the question) -> text."""

    def __init__(self, mllm, answers):
        self.mllm, self.answers, self.asked = mllm, answers, 0
        self.identity, self.model = mllm.identity, mllm.model

    def generate(self, prompt, **settings):
        self.mllm.generate(prompt, **{**settings, "max_new_tokens": 1})  # the prompt is one that it can read
        self.asked += 1
        return self.answers(self.asked)


def test_people_and_styles_are_left_out(plus):
    assert {sample.category for sample in plus.samples} == {"animal", "object"} and len(plus.samples) == 6


def test_several_judges_are_averaged_and_each_is_held_alone(made, plus, mllm):
    opened = []

    def judge(name, value):
        def open_it():
            opened.append(name)
            other = Scripted(mllm, lambda number: f"Score: {value}")
            other.identity = replace(mllm.identity, final_norm_hash=name)
            return other

        return Judge(name, open_it)

    result = score(made, plus, [judge("low", 1), judge("high", 4)], Cache(), settings=QUICK)
    assert opened == ["low", "high"] and len(result.pictures) == 6
    assert (result.mean("low"), result.mean("high"), result.mean(AVERAGE)) == (1.0, 4.0, 2.5)


def test_malformed_answers_are_asked_again_then_missing_and_never_zero(made, plus, mllm):
    # Every picture is asked twice at most; the first answers of all are useless, of the third picture both are.
    script = iter(["?", "Score: 4", "?", "Score: 2", "?", "nothing", "Score: 3", "Score: 3", "Score: 3"])
    judge = Scripted(mllm, lambda number: next(script))
    result = score(made, plus, [Judge("one", lambda: judge)], Cache(), settings=QUICK)
    assert [row.score("one") for row in result.pictures] == [4, 2, None, 3, 3, 3]
    assert result.mean("one") == 3.0 and result.counted("one") == 5 and result.mean(AVERAGE) == 3.0
    assert result.pictures[2].details["unusable answers"] == {"one": ["?", "nothing"]}
    assert [problem.file for problem in result.problems] == [result.pictures[2].file]
    assert any("1 of 6 pictures" in note for note in result.notes)


def test_a_picture_without_all_judges_has_no_average(made, plus, mllm):
    silent = Judge("silent", lambda: Scripted(mllm, lambda number: "no"))
    kind = Judge("kind", lambda: Scripted(mllm, lambda number: "Score: 4"))
    result = score(made, plus, [silent, kind], Cache(), settings=QUICK)
    assert result.mean("silent") is None and result.mean("kind") == 4.0 and result.mean(AVERAGE) is None


def test_verdicts_are_kept_and_missing_ones_are_asked_again(made, plus, mllm, tmp_path):
    first = Scripted(mllm, lambda number: "no" if number < 3 else "Score: 2")
    score(made, plus, [Judge("one", lambda: first)], Cache(tmp_path), settings=QUICK)
    second = Scripted(mllm, lambda number: "Score: 1")
    result = score(made, plus, [Judge("one", lambda: second)], Cache(tmp_path), settings=QUICK)
    assert second.asked == 1 and [row.score("one") for row in result.pictures] == [1, 2, 2, 2, 2, 2]
    third = Scripted(mllm, lambda number: "Score: 0")
    changed = JudgeSettings(attempts=2, max_new_tokens=4, side=112)
    assert score(made, plus, [Judge("one", lambda: third)], Cache(tmp_path), settings=changed).mean("one") == 0


def test_a_real_mllm_is_a_judge(made, plus, mllm):
    """Random weights answer nonsense: every score is missing, and what was said is in the report."""
    result = score(made[:2], plus, [Judge("tiny", lambda: mllm)], Cache(), settings=QUICK)
    reference, picture = (Image.open(path) for path in (made[0].sample.inputs[0], made[0].path))
    said = ask(mllm, reference, picture, QUICK)
    assert said.score is None and result.mean("tiny") is None
    assert result.pictures[0].details["unusable answers"]["tiny"] == list(said.answers)


def test_a_method_folder_of_dreambench_plus_itself_is_scored(plus, tmp_path):
    def official(sample):
        words = sample.subjects[0].words.lower().replace(" ", "_")
        stem = sample.inputs[0].stem
        group = "live_subject_animal" if sample.category == "animal" else "object"
        return f"{group}_{stem}_{words}/{sample.prompt}_0.jpg"

    fill(tmp_path / "tgt_image", plus, official)
    fill(tmp_path / "src_image", plus, official)
    found, problems = collect(tmp_path, plus)
    assert len(found) == 6 and not problems
    assert {picture.sample.text for picture in found} == {sample.text for sample in plus.samples}
    for picture in found:
        assert picture.path.parent.name.endswith(picture.sample.subjects[0].words.lower().replace(" ", "_"))


def test_no_judge_or_two_of_one_name_is_refused(made, plus, mllm):
    with pytest.raises(SqueezeError, match="at least one MLLM"):
        score(made, plus, [], Cache())
    with pytest.raises(SqueezeError, match="name of its own"):
        score(made, plus, [Judge("a", lambda: mllm)] * 2, Cache())


def test_the_report_sets_the_average_among_the_published_rows(made, plus, mllm):
    judge = Judge("kind", lambda: Scripted(mllm, lambda number: "Score: 3"))
    text = report.to_markdown(score(made, plus, [judge], Cache(), settings=QUICK))
    assert "USO" in text and "2.800" in text and "published" in text and "3.000" in text
    assert "## By category" in text and "| animal |" in text and "| object |" in text
