import pytest
import torch

from squeeze_core.flux.conditioning import late_context, null

CONTEXT, POOLED = torch.ones(2, 5, 3), torch.ones(2, 4)


def test_nothing_is_one_zero_token_and_a_zero_pooled_vector():
    context, pooled = null(CONTEXT.bfloat16(), POOLED)
    assert (context.shape, pooled.shape) == ((2, 1, 3), (2, 4))
    assert (context.dtype, pooled.dtype) == (torch.bfloat16, torch.float32)
    assert not context.any() and not pooled.any()


@pytest.mark.parametrize(("late", "tokens", "said"), [("drop", 1, False), ("zero", 5, False), ("keep", 5, True)])
def test_what_late_leaves_of_the_text_side(late, tokens, said):
    context, pooled = late_context(late, CONTEXT, POOLED)
    assert context.shape[1] == tokens
    assert bool(context.any()) is bool(pooled.any()) is said
