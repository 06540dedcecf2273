"""Who sees whom: grouped attention is masked attention, and what the rule promises."""

import math

import pytest
import torch

from squeeze_core.attention.groups import grouped_attention, groups, scaled_dot_product
from squeeze_core.attention.visibility import PICTURE, REFERENCE, WORD, ReferenceSpan, Visibility, bias

WORDS, CELLS, HEADS, DIM = 9, 30, 2, 16


def drawn(
    seed: int, subjects: int, references: int = 3, regions: str = "any", strengths: bool = True
) -> Visibility:
    draw = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=draw)

    spans = []
    for _ in range(references):
        region = {
            "none": None,
            "hard": whole(0, 2, CELLS).float(),
            "grey": torch.rand(CELLS, generator=draw),
            "empty": torch.zeros(CELLS),
        }
        kind = regions if regions != "any" else list(region)[int(whole(0, 4, 1))]
        strength = float(torch.rand(1, generator=draw)) * 3 + 0.1 if strengths else 1.0
        spans.append(ReferenceSpan(int(whole(1, 6, 1)), int(whole(0, subjects + 1, 1)), strength, region[kind]))
    return Visibility(whole(0, subjects + 1, WORDS), whole(0, subjects + 1, CELLS), tuple(spans))


def qkv(seen: Visibility, batch: int = 2, dtype=torch.float32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(9)
    return torch.randn(3, batch, HEADS, seen.tokens, DIM, generator=draw).to(dtype)


def grouped(seen: Visibility, q, k, v, **more):
    return grouped_attention(q, k, v, tuple(part.to("cpu", q.dtype) for part in groups(seen)), **more)


@pytest.mark.parametrize("regions", ["none", "hard", "grey", "empty", "any"])
@pytest.mark.parametrize("subjects", [0, 1, 2, 4, 12])
def test_grouped_attention_is_masked_attention(subjects, regions):
    for seed in range(3):
        seen = drawn(seed, subjects, regions=regions)
        q, k, v = qkv(seen)
        masked = scaled_dot_product(q, k, v, bias(seen))
        assert (grouped(seen, q, k, v) - masked).abs().max() < 1e-5


def test_a_mask_that_the_model_has_is_kept():
    seen = drawn(1, 3)
    q, k, v = qkv(seen)
    for shape in ((2, 1, 1, seen.tokens), (1, 1, seen.tokens, seen.tokens), (2, HEADS, seen.tokens, seen.tokens)):
        own = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        masked = scaled_dot_product(q, k, v, bias(seen) + own)
        assert (grouped(seen, q, k, v, mask=own) - masked).abs().max() < 1e-5


def test_every_token_asks_once_and_strengths_are_the_only_bias():
    seen = drawn(3, 4, regions="hard", strengths=False)
    parts = groups(seen)
    assert all(part.bias is None for part in parts)
    asked = torch.cat([part.queries for part in parts]).sort().values
    assert torch.equal(asked, torch.arange(seen.tokens))


def test_a_strength_alone_keeps_one_call_and_adds_to_its_own_keys_only():
    seen = Visibility(
        torch.zeros(3).long(), torch.zeros(4).long(), (ReferenceSpan(2, strength=2.0), ReferenceSpan(1))
    )
    (part,) = groups(seen)
    assert part.queries is None and part.keys is None
    assert part.added()[0, 0].tolist() == [[0.0] * 7 + [pytest.approx(math.log(2))] * 2 + [0.0]]


def test_strength_two_is_the_same_keys_twice():
    seen = Visibility(torch.zeros(3).long(), torch.zeros(4).long(), (ReferenceSpan(5, strength=2.0),))
    q, k, v = qkv(seen)
    twice = [torch.cat([x, x[:, :, 7:]], 2) for x in (k, v)]
    assert (grouped(seen, q, k, v) - scaled_dot_product(q, *twice, None)).abs().max() < 1e-5


@pytest.mark.parametrize("owner", [1, 7])
def test_a_single_owner_of_everything_is_no_layout(owner):
    spans = (ReferenceSpan(4, owner), ReferenceSpan(2, owner))
    seen = Visibility(torch.full((WORDS,), owner), torch.full((CELLS,), owner), spans)
    assert seen.plain and (bias(seen) == 0).all()
    q, k, v = qkv(seen)
    assert torch.equal(grouped(seen, q, k, v), scaled_dot_product(q, k, v, None))


def test_owners_permuted_give_the_same_result():
    seen = drawn(5, 4)
    renamed = torch.tensor([0, 3, 1, 4, 2])
    spans = tuple(
        ReferenceSpan(span.tokens, int(renamed[span.owner]), span.strength, span.region) for span in seen.references
    )
    q, k, v = qkv(seen)
    other = Visibility(renamed[seen.words], renamed[seen.picture], spans)
    assert (grouped(seen, q, k, v) - grouped(other, q, k, v)).abs().max() < 1e-6


def test_no_key_of_one_subject_reaches_anothers_region():
    seen = drawn(7, 2, references=4)
    owners = torch.cat([seen.words, *(torch.full((span.tokens,), span.owner) for span in seen.references)])
    of_words = torch.arange(len(owners)) < WORDS
    places = torch.where(of_words, torch.arange(len(owners)), torch.arange(len(owners)) + CELLS)
    q, k, v = (x.requires_grad_() for x in qkv(seen))
    result = grouped(seen, q, k, v)
    for subject, other in ((1, 2), (2, 1)):
        region = (seen.picture == other).nonzero()[:, 0] + WORDS
        gradients = torch.autograd.grad(result[:, :, region].sum(), (k, v), retain_graph=True)
        mine = places[owners == subject]
        assert all((gradient[:, :, mine] == 0).all() for gradient in gradients)
        theirs = places[owners == other]
        assert all((gradient[:, :, theirs] != 0).any() for gradient in gradients)


def sees(seen: Visibility) -> torch.Tensor:
    return bias(seen) > -math.inf


def test_the_rule_as_it_is_written():
    """One token of each kind and owner: words 0 1 2, picture 0 1 2, references 0 1 2."""
    each = torch.arange(3)
    seen = Visibility(each, each, tuple(ReferenceSpan(1, owner) for owner in range(3)))
    table = sees(seen)
    place = {(kind, owner): kind * 3 + owner for kind in (WORD, PICTURE, REFERENCE) for owner in range(3)}

    def allowed(kind: int, owner: int) -> set[tuple[int, int]]:
        return {key for key, column in place.items() if table[place[kind, owner], column]}

    everywhere = {(PICTURE, 0), (PICTURE, 1), (PICTURE, 2)}
    shared = {(WORD, 0), (REFERENCE, 0)}
    assert allowed(PICTURE, 0) == everywhere | shared
    assert allowed(PICTURE, 2) == everywhere | shared | {(WORD, 2), (REFERENCE, 2)}
    assert allowed(WORD, 1) == shared | {(WORD, 1), (PICTURE, 1), (REFERENCE, 1)}
    assert allowed(REFERENCE, 1) == {(WORD, 0), (WORD, 1), (PICTURE, 1), (REFERENCE, 1)}
    assert allowed(WORD, 0) == allowed(REFERENCE, 0) == everywhere | shared
