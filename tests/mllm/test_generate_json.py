"""Answers held to a schema: whole whatever the model, several from one reading, by their seeds."""

import builtins
import json

import pytest
import torch

from squeeze_core.errors import SqueezeError
from squeeze_core.mllm import Prompt, constrained, load

from . import checkpoints

TEXT = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f-\x9f ][^\x00-\x1f\x7f-\x9f]{0,39}$"}
SCHEMA = {
    "type": "object",
    "properties": {
        "thought": TEXT,
        "names": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5},
        "numbers": {"type": "array", "items": {"enum": [0, 1, 12]}, "minItems": 3, "maxItems": 3},
        "none": {"const": None},
    },
    "required": ["thought", "names", "numbers", "none"],
    "additionalProperties": False,
}


def ask(backbone, images=(), **options):
    return backbone.generate_json(Prompt("the hat", tuple(images)), SCHEMA, **{"words": 60, **options})


def test_every_answer_follows_the_schema_and_holds_no_control_characters(backbone, pictures):
    """Of a model with random weights, which would never write JSON by itself; also when it has hardly any room."""
    for words in (1, 30, 200):
        for answer in ask(backbone, pictures, seeds=range(3), temperature=2.0, words=words):
            value = json.loads(answer)
            assert list(value) == ["thought", "names", "numbers", "none"]
            assert 1 <= len(value["thought"]) <= 40 and 1 <= len(value["names"]) <= 5
            assert len(value["numbers"]) == 3 and set(value["numbers"]) <= {0, 1, 12} and value["none"] is None
            assert all(ord(sign) >= 32 for text in (value["thought"], *value["names"]) for sign in text)


def test_the_vocabulary_of_the_logits_may_be_wider_than_the_tokenizer(backbone):
    assert backbone.config.text_config.vocab_size > len(backbone.tokenizer)
    (answer,) = _grammar(backbone).answers(SCHEMA, 1)
    allowed = answer.allowed()
    assert len(allowed) == backbone.config.text_config.vocab_size
    assert allowed.any() and not allowed[len(backbone.tokenizer) :].any()


def test_greedy_answers_equal_step_by_step_argmax_over_what_the_schema_allows(backbone, pictures):
    """Each step by a forward over the whole text so far, without a cache of keys and values."""
    prompt = Prompt("the hat", (pictures[0],))
    inputs = backbone.inputs(prompt, "cpu")
    (answer,) = _grammar(backbone).answers(SCHEMA, 1)
    tokens = []
    with torch.no_grad():
        for _ in range(12):
            if hasattr(backbone.model.model, "rope_deltas"):
                backbone.model.model.rope_deltas = None
            logits = backbone.model(**inputs, use_cache=False).logits[0, -1]
            tokens.append(int(logits.masked_fill(~answer.allowed(), -torch.inf).argmax()))
            answer.add(tokens[-1])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[tokens[-1]]])], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in inputs:
                types = inputs["mm_token_type_ids"]
                inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(1, 1)], dim=1)
    expected = backbone.tokenizer.decode(tokens)
    (written,) = ask(backbone, [pictures[0]], words=200)
    assert written.startswith(expected)
    assert ask(backbone, [pictures[0]], words=200, seeds=(0, 1, 2)) == [written] * 3  # side by side as alone


def test_the_prompt_is_read_once_for_all_answers(backbone, pictures, monkeypatch):
    read = []
    forward = backbone.model.forward
    monkeypatch.setattr(
        backbone.model,
        "forward",
        lambda *given, **named: read.append(tuple(named["input_ids"].shape)) or forward(*given, **named),
    )
    ask(backbone, pictures, seeds=range(4), temperature=1.0)
    prompt = backbone.inputs(Prompt("the hat", tuple(pictures)), "cpu")["input_ids"].shape
    assert read[0] == tuple(prompt)
    assert set(read[1:]) == {(4, 1)}


def test_the_same_seeds_give_the_same_answers_and_touch_nobody_elses(backbone):
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    answers = ask(backbone, seeds=(3, 4, 5), temperature=1.5)
    assert torch.equal(torch.rand(4), expected)
    assert ask(backbone, seeds=(3, 4, 5), temperature=1.5) == answers
    assert len(set(answers)) > 1
    assert len(set(ask(backbone, seeds=(3, 3), temperature=1.5))) == 1


def test_progress_counts_tokens_and_an_interrupt_stops_between_them(backbone):
    seen = []
    ask(backbone, seeds=(0, 1), temperature=1.0, progress=lambda *now: seen.append(now))
    limit = constrained.fewest_tokens(SCHEMA) + 60
    assert seen == [(done, limit) for done in range(1, len(seen) + 1)] and len(seen) <= limit

    class Interrupt(BaseException):
        pass

    def stop(done, limit):
        if done == 3:
            raise Interrupt

    with pytest.raises(Interrupt):
        ask(backbone, progress=stop)
    json.loads(ask(backbone)[0])


def test_without_llguidance_one_sentence_tells_the_command(backbone, monkeypatch):
    genuine = builtins.__import__

    def missing(name, *rest, **named):
        if name.startswith("llguidance"):
            raise ImportError(name)
        return genuine(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr(backbone, "_grammar", None)
    with pytest.raises(SqueezeError, match="pip install llguidance"):
        ask(backbone)


def test_what_cannot_be_asked_for_is_refused(backbone, tmp_path):
    for wrong in ({"seeds": ()}, {"words": 0}, {"temperature": -1.0}):
        with pytest.raises(SqueezeError, match="at least 1 seed"):
            ask(backbone, **wrong)
    with pytest.raises(SqueezeError, match="this model reads 32,768"):
        ask(backbone, words=40_000)
    with pytest.raises(SqueezeError, match="no output layer"):
        ask(load(checkpoints.internvl(tmp_path / "model", with_head=False)))


def _grammar(backbone):
    return constrained.JSONGrammar(backbone.tokenizer, backbone.config.text_config.vocab_size, backbone._ends())
