"""The judge's answers: read strictly, asked for again, never turned into a zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeeze_core.evaluation.judging import INSTRUCTION, JudgeSettings, judge, parse_score

PICTURES = (Image.new("RGB", (60, 40), "red"), Image.new("RGB", (80, 80), "blue"))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Score: 3", 3),
        ("score: [0]", 0),
        ("**Score:** 4", 4),
        ("Score: **3**.", 3),
        ("3", 3),
        (" 2.\n", 2),
        ("Score: 3/4", 3),
        ("Score: 3 out of 4", 3),
        ("Score: Good (3)", 3),
        ("Excellent (4)", 4),
        ("The score is 2.", 2),
        ("Score：1", 1),
        ("Score: 3\n\nThe shape matches 2 of 3 parts.", 3),
        ("<think>Score: 1, no, better</think>Score: 2", 2),
        ("Score: 2\nScore: 2", 2),
        ("Score: 2\nScore: 3", None),  # which?
        ("Score: Good (2)", None),  # which?
        ("Score: 3.5", None),
        ("Score: 3,5", None),
        ("Score: 5", None),
        ("Score: -1", None),
        ("Score: 30", None),
        ("Score: 3/5", None),
        ("Score: 3-4", None),
        ("Score: 3 or 4", None),
        ("Score: 0 to 4", None),
        ("Score: 3%", None),
        ("Score: four", None),
        ("Score: [Your Score]", None),
        ("<think>never ends. Score: 3", None),
        ("I see 3 cats", None),
        ("", None),
    ],
)
def test_an_answer_gives_its_one_whole_number_or_nothing(answer, score):
    assert parse_score(answer) == score


@given(st.text(max_size=200))
def test_no_answer_breaks_the_parser_and_nothing_outside_the_scale_comes_out(answer):
    assert parse_score(answer) in (None, 0, 1, 2, 3, 4)
    assert parse_score("Score: " + answer) in (None, 0, 1, 2, 3, 4)


@given(st.integers(0, 4), st.sampled_from(["", " ", "\n", ".", "\n\nBecause of the shape."]))
def test_the_asked_for_form_is_always_read(number, ending):
    assert parse_score(f"Score: {number}{ending}") == number


@given(st.integers().filter(lambda n: not 0 <= n <= 4))
def test_numbers_off_the_scale_are_never_clipped_into_it(number):
    assert parse_score(f"Score: {number}") is None


class Scripted:
    """Answers from a list; what it was asked is kept. The real backbones are asked in test_dreambench_plus.py."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def generate(self, prompt, **settings):
        self.asked.append((prompt, settings))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def test_a_malformed_answer_is_asked_for_again_with_another_draw():
    judged = Scripted("I cannot say.", "Score: 9", "Score: 3")
    verdict = judge(judged, *PICTURES)
    assert (verdict.score, len(verdict.answers)) == (3, 3)
    asked = [(settings["temperature"], settings["seed"]) for _, settings in judged.asked]
    assert asked == [(0.0, 0), (0.7, 1), (0.7, 2)]


def test_a_judge_that_never_answers_gives_a_missing_score_not_a_zero():
    judged = Scripted("no idea")
    verdict = judge(judged, *PICTURES, JudgeSettings(attempts=3))
    assert verdict.score is None and len(verdict.answers) == 3


def test_a_score_of_zero_is_an_answer_and_asked_for_once():
    judged = Scripted("Score: 0", "Score: 4")
    assert judge(judged, *PICTURES).score == 0 and len(judged.asked) == 1


def test_the_judge_gets_the_papers_text_then_reference_and_generated_picture_at_512():
    judged = Scripted("Score: 1")
    judge(judged, *PICTURES)
    prompt = judged.asked[0][0]
    assert prompt.text == INSTRUCTION and [image.size for image in prompt.images] == [(512, 512)] * 2
    assert prompt.images[0].getpixel((9, 9)) == (255, 0, 0) and prompt.images[1].getpixel((9, 9)) == (0, 0, 255)


def test_the_cache_key_changes_with_whatever_changes_a_verdict():
    keys = {JudgeSettings(**change).fingerprint() for change in ({}, {"tiles": 4}, {"side": 448}, {"attempts": 2})}
    assert len(keys) == 4
