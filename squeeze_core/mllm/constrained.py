"""Answers that are JSON of a schema, whatever the model is: at every token only what may come next is left.

The schema is followed by llguidance, which is imported when a model answers so and not before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import SqueezeError

# Between the parts of the JSON there are no spaces: they would only cost tokens.
_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_STRING = 6  # tokens of the shortest string: two quotes, and one sign of up to four bytes


class JSONGrammar:
    """Schemas for one tokenizer. Made once a model: it reads the whole vocabulary.

    vocabulary: width of the model's logits, which may be more than the tokenizer has (151,936 against 151,665).
    ends: tokens that end an answer; the first is the usual one.
    Raises `SqueezeError` when llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int]) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise SqueezeError(
                "Planning with an MLLM needs llguidance, which is not installed. Run: pip install llguidance "
                "(3 MB, nothing else comes with it). The rule, and plans written by hand, need no model."
            ) from error
        self._matcher = llguidance.LLMatcher
        self._tokens = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=ends[0])
        self._vocabulary, self._ends = vocabulary, list(ends)
        known = tokenizer.get_vocab()
        self._closing = [known[sign] for sign in ('"', "]", "}") if sign in known]

    def answers(self, schema: Mapping[str, Any], count: int) -> list[JSONAnswer]:
        """`count` answers to be, none of which has begun. Raises `SqueezeError` for an unknown schema."""
        grammar = self._matcher.grammar_from_json_schema(json.dumps(schema), defaults=_COMPACT)
        first = self._matcher(self._tokens, grammar)
        if first.is_error():
            raise SqueezeError(f"The schema of the answer cannot be followed: {first.get_error()}.")
        size = (self._vocabulary, self._ends, self._closing)
        return [JSONAnswer(first.deep_copy(), *size) for _ in range(count)]


class JSONAnswer:
    """One answer in the making: `allowed` before each token, `add` after it."""

    def __init__(self, matcher: Any, vocabulary: int, ends: list[int], closing: list[int]) -> None:
        self._matcher, self._vocabulary, self._ends, self._closing = matcher, vocabulary, ends, closing

    @property
    def complete(self) -> bool:
        """Nothing but the end may follow."""
        return self._matcher.is_stopped()

    def allowed(self, closing: bool = False) -> torch.Tensor:
        """[vocabulary] bool. closing: where a text, a list or an object can end, only what ends it."""
        kept = torch.zeros(self._vocabulary, dtype=torch.bool)
        if self.complete:
            kept[self._ends] = True
            return kept
        bias = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        kept[: len(bias)] = bias[: self._vocabulary] > 0
        for token in self._closing if closing else ():
            if kept[token]:
                kept[:] = False
                kept[token] = True
                break
        return kept

    def add(self, token: int) -> None:
        if not self.complete and not self._matcher.consume_token(token):
            raise RuntimeError(f"token {token} is not of the grammar: {self._matcher.get_error()}")


def fewest_tokens(schema: Mapping[str, Any]) -> int:
    """Tokens that suffice to finish any answer in `closing`: a token for each sign that must be there.

    Knows what the plan's schema uses: objects whose properties are all required, lists, texts, numbers, choices.
    """
    if "const" in schema:
        return len(json.dumps(schema["const"]))
    if "enum" in schema:
        return max(len(json.dumps(choice)) for choice in schema["enum"])
    kind = schema["type"]
    if kind == "object":
        named = schema["properties"].items()
        return 2 + sum(len(json.dumps(name)) + 2 + fewest_tokens(part) for name, part in named)
    if kind == "array":
        first = list(schema.get("prefixItems", ()))[: schema["minItems"]]
        rest = schema["minItems"] - len(first)
        # Of a list that is longer by choice, one more entry may be open when closing begins.
        more = schema.get("items") or (schema["prefixItems"][-1] if "prefixItems" in schema else {"const": 0})
        longer = schema.get("maxItems", 0) > schema["minItems"]
        entries = [*first, *([more] * (rest + longer))]
        return 2 + sum(1 + fewest_tokens(entry) for entry in entries)
    if kind == "string":
        return _STRING
    raise ValueError(f"no length is known for {kind!r}")
