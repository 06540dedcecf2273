"""Answers as text: greedy, seeded, limited, interruptible."""

import pytest
import torch

from squeeze_core.errors import SqueezeError
from squeeze_core.mllm import Prompt, load

from . import checkpoints


def test_greedy_answers_equal_step_by_step_argmax(backbone, pictures):
    prompt = Prompt("the hat", (pictures[0],))
    inputs = backbone.inputs(prompt, "cpu")
    ends = backbone._ends()
    tokens = []
    with torch.no_grad():
        for _ in range(6):
            backbone.model.model.rope_deltas = None
            logits = backbone.model(**inputs, use_cache=False).logits
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] in ends:
                break
            grown = {name: inputs[name] for name in inputs}
            grown["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[tokens[-1]]])], dim=1)
            grown["attention_mask"] = torch.ones_like(grown["input_ids"])
            if "mm_token_type_ids" in inputs:
                zero = inputs["mm_token_type_ids"].new_zeros(1, 1)
                grown["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], zero], dim=1)
            inputs = grown
    expected = backbone.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert backbone.generate(prompt, max_new_tokens=6) == expected


def test_sampling_depends_on_the_seed_alone(backbone, pictures):
    def answer(seed):
        torch.rand(seed + 3)  # the caller's own use of randomness must not matter
        return backbone.generate(Prompt("the hat", (pictures[0],)), max_new_tokens=12, temperature=1.5, seed=seed)

    answers = [answer(seed) for seed in range(4)]
    assert [answer(seed) for seed in range(4)] == answers
    assert len(set(answers)) > 1


def test_the_callers_random_numbers_are_untouched(backbone):
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    backbone.generate(Prompt("the hat"), max_new_tokens=3, temperature=1.0, seed=1)
    assert torch.equal(torch.rand(4), expected)


def test_progress_counts_tokens_up_to_the_limit(backbone):
    seen = []
    backbone.generate(Prompt("the hat"), max_new_tokens=5, progress=lambda *now: seen.append(now))
    assert seen == [(done, 5) for done in range(1, len(seen) + 1)]
    assert 1 <= len(seen) <= 5


def test_an_interrupt_stops_between_tokens(backbone):
    class Interrupt(BaseException):
        pass

    seen = []

    def progress(done, limit):
        seen.append(done)
        raise Interrupt

    with pytest.raises(Interrupt):
        backbone.generate(Prompt("the hat"), max_new_tokens=50, progress=progress)
    assert seen == [1]
    backbone.generate(Prompt("the hat"), max_new_tokens=2)


def test_an_answer_holds_no_control_tokens_and_ends_at_the_end_token(backbone, monkeypatch):
    """The output layer is set so that the end of message is always the likeliest token."""
    end = backbone.tokenizer.convert_tokens_to_ids("<|im_end|>")
    head = backbone.model.lm_head
    monkeypatch.setattr(
        head,
        "forward",
        lambda hidden: (
            torch.nn.functional.one_hot(torch.tensor(end), head.out_features).float().expand(*hidden.shape[:-1], -1)
        ),
    )
    seen = []
    answer = backbone.generate(Prompt("the hat"), max_new_tokens=9, progress=lambda *now: seen.append(now))
    assert answer == ""
    assert seen == [(1, 9)]


@pytest.mark.parametrize(("tokens", "temperature"), [(0, 0.0), (5, -1.0)])
def test_impossible_settings_are_refused(backbone, tokens, temperature):
    with pytest.raises(SqueezeError, match="at least 1 token"):
        backbone.generate(Prompt("the hat"), max_new_tokens=tokens, temperature=temperature)


def test_a_checkpoint_without_output_layer_encodes_but_says_that_it_cannot_write(tmp_path):
    backbone = load(checkpoints.internvl(tmp_path / "model", with_head=False))
    assert backbone.encode(Prompt("the hat")).tokens > 0
    assert not any(parameter.is_meta for parameter in backbone.model.parameters())
    with pytest.raises(SqueezeError, match="no output layer"):
        backbone.generate(Prompt("the hat"))
