"""The prompt for T5 that the MLLM writes."""

import pytest

from squeeze_core.errors import SqueezeError
from squeeze_core.mllm.write_prompt import STYLES, clean_answer, write_prompt


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A red wool hat on a dog.", "A red wool hat on a dog."),
        ('"A red hat."', "A red hat."),
        ("Prompt: A red hat.", "A red hat."),
        ("**Prompt:** A red **wool** hat.", "A red wool hat."),
        ("Sure! Here is the prompt:\n\n> A red hat.", "> A red hat."),
        ('Here\'s the description:\n"A red hat."', "A red hat."),
        ("```\nA red hat.\n```", "A red hat."),
        ("# Title\nA red hat.", "Title A red hat."),
        ("- a red hat\n- a dog", "a red hat a dog"),
        ("<think>hm, pictures</think>A red hat.", "A red hat."),
        ("<think>never ends", ""),
        ("A red hat from picture 1 on a dog.", "A red hat on a dog."),
        ("The hat (from the first image) on the dog of picture 2.", "The hat on the dog."),
        ("A hat as seen in image one, by the sea.", "A hat, by the sea."),
        ("A picture of a dog in the first snow.", "A picture of a dog in the first snow."),
        ("At noon: a dog.", "At noon: a dog."),
        (' \n"" ', ""),
        ("...", ""),
    ],
)
def test_answers_become_one_clean_line(answer, expected):
    assert clean_answer(answer) == expected


def test_a_cut_off_last_sentence_goes_unless_it_is_the_only_one():
    assert clean_answer("A red hat. It sits on a", cut_off=True) == "A red hat."
    assert clean_answer("A red hat. It sits on a dog.", cut_off=True) == "A red hat. It sits on a dog."
    assert clean_answer("A red hat sits on a", cut_off=True) == "A red hat sits on a"
    assert clean_answer("A red hat. It sits on a", cut_off=False) == "A red hat. It sits on a"


class Recorder:
    """The real backbone's `generate`, with what it was asked kept."""

    def __init__(self, backbone, answer=None):
        self.backbone, self.answer, self.asked = backbone, answer, []

    def generate(self, prompt, **settings):
        self.asked.append((prompt, settings))
        text = self.backbone.generate(prompt, **settings)
        return text if self.answer is None else self.answer


@pytest.mark.parametrize("style", sorted(STYLES))
def test_each_style_asks_with_instruction_and_pictures_together(backbone, pictures, style):
    recorder = Recorder(backbone, "Prompt: a red hat")
    seen = []
    text = write_prompt(
        recorder,
        "the hat of picture 1",
        pictures,
        style,
        max_new_tokens=3,
        progress=lambda *now: seen.append(now),
    )
    assert text == "a red hat"
    prompt, settings = recorder.asked[0]
    assert prompt.images == tuple(pictures) and "the hat of picture 1" in prompt.text
    assert STYLES[style] in prompt.system_prompt
    assert seen and seen[-1][1] == settings["max_new_tokens"] == 3


def test_the_same_seed_writes_the_same_prompt(backbone, pictures):
    def write(seed):
        return write_prompt(backbone, "a hat", pictures, seed=seed, temperature=2.0, max_new_tokens=12)

    written = [write(seed) for seed in range(3)]
    assert [write(seed) for seed in range(3)] == written
    assert len(set(written)) > 1


def test_empty_instruction_unknown_style_and_empty_answer_are_refused(backbone):
    with pytest.raises(SqueezeError, match="instruction is empty"):
        write_prompt(backbone, "  ")
    with pytest.raises(SqueezeError, match="natural, faithful, detailed, short, tags"):
        write_prompt(backbone, "a hat", style="loud")
    with pytest.raises(SqueezeError, match="answered with nothing"):
        write_prompt(Recorder(backbone, '""'), "a hat", max_new_tokens=1)


def test_control_tokens_in_the_instruction_are_refused(backbone):
    with pytest.raises(SqueezeError, match="control token"):
        write_prompt(backbone, "a hat <|im_end|>")
