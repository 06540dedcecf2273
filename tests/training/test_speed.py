"""What makes a step cheaper changes no gradient: few calls, fewer checkpoints, compiled blocks, few-bit weights."""

import pytest
import torch

from squeeze_core.errors import SqueezeError
from squeeze_core.flux import quantized
from squeeze_core.flux.batching import few_calls, padded_length
from squeeze_core.training import checkpointing
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.checkpointing import Memory
from squeeze_core.training.compiling import no_compiler
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.loop import Trainer

from . import tiny
from .test_loop import lines, same, saved
from .test_squeeze_task import gradients, nudge

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(no_compiler(CPU) is not None, reason=f"COMPILING WAS NOT TESTED: {no_compiler(CPU)}")


@pytest.fixture
def make(models, uno):
    def make(**changes):
        return squeeze_task(parse_config(tiny.config_values(models, changes.pop("data_folder", uno), **changes)))

    return make


def test_sixteen_samples_of_one_size_need_at_most_two_calls_whatever_they_hear(make, tmp_path):
    task = nudge(make(drops={"pictures": 0.3, "references": 0.5, "context": 0.3}))
    assert task.config.calls == "few"
    samples = task.batch(range(16))
    assert len({len(sample.references) for sample in samples}) == 2
    each = nudge(make(drops={"pictures": 0.3, "references": 0.5, "context": 0.3}, calls="each"))
    loss, numbers, found = gradients(task, samples)
    expected_loss, apart, expected = gradients(each, samples)
    assert numbers["flux_calls"] <= 2 and apart["flux_calls"] == 16
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_references_of_other_sizes_share_a_call(make, tmp_path):
    data = tiny.write_uno(tmp_path / "uno", pairs=4)
    from PIL import Image

    for number, size in enumerate(((64, 32), (32, 64), (48, 48), (64, 64))):
        path = data / "images" / "split1" / f"{number}_1.png"
        Image.open(path).resize(size).save(path)
    never = {"pictures": 0.0, "references": 0.0, "context": 0.0}
    few, each = (nudge(make(data_folder=data, drops=never, calls=calls)) for calls in ("few", "each"))
    samples = few.batch(range(4))
    assert len({sample.references[0].pixels.shape for sample in samples}) > 2
    loss, numbers, found = gradients(few, samples)
    expected_loss, _, expected = gradients(each, samples)
    assert numbers["flux_calls"] <= 2
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_a_second_call_is_made_only_where_it_saves_tokens():
    assert few_calls([100] * 16) == [list(range(16))]
    assert few_calls([100, 300, 100, 300]) == [[0, 2], [1, 3]]
    assert few_calls([100, 300, 100, 300], most=1) == [[0, 1, 2, 3]]
    assert few_calls([7]) == [[0]]
    assert few_calls([290, 300, 295]) == [[0, 1, 2]]


@pytest.mark.parametrize("words", range(1, 140))
def test_a_padded_length_holds_all_and_is_never_64_modulo_128(words):
    for tokens, picture in ((1024, 1024), (2048, 1024), (64, 64)):
        for multiple in (8, 512):
            longest = padded_length(words, tokens, picture, multiple)
            assert longest >= words and (longest + tokens) % 128 != 64
            assert longest - words < multiple + 8


def test_any_number_of_blocks_may_be_computed_again(make):
    plain = nudge(make(gradient_checkpointing="off"))
    samples = plain.batch(range(4))
    _, _, expected = gradients(plain, samples)
    assert plain.blocks.again == 0 and not plain.module.transformer.gradient_checkpointing
    for setting, again in (("on", 2), (1, 1), (99, 2), ("auto", 2)):
        task = nudge(make(gradient_checkpointing=setting))
        assert task.blocks.again == again
        _, _, found = gradients(task, samples)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("total, again", [(10**9, 0), (2_500, 0), (2_000, 1), (1_500, 2)])
def test_auto_keeps_as_many_activations_as_the_memory_holds(make, total, again):
    """A device that says: a block keeps 400 bytes; the first step's peak was 2,000, with one block of each kind."""
    task = make(gradient_checkpointing="auto")
    said = iter([0, 400, 1000, 1400])
    task.blocks.memory = Memory(lambda: next(said), lambda: 2_000, lambda: total / checkpointing.SHARE)
    gradients(task, task.batch(range(1)))
    assert set(task.blocks.kept.values()) == {400} and task.blocks.again == 2
    task.stepped()
    # 2,000 of 2,000 leave the 800 of the two that were kept, which with headroom, 460 a block, hold one.
    assert task.blocks.again == again


def test_a_wrong_number_of_blocks_is_refused(make):
    for wrong in (-1, "some"):
        with pytest.raises(SqueezeError, match="gradient_checkpointing"):
            make(gradient_checkpointing=wrong)


@pytest.fixture
def graphs():
    """The number of graphs that this test compiled: torch counts a whole process's, other tests' among them."""
    torch.compiler.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
    torch.compiler.reset()


@compiled
def test_compiled_blocks_change_no_gradient_and_have_few_shapes(make, graphs):
    drops = {"pictures": 0.3, "references": 0.5, "context": 0.3}
    plain, task = (nudge(make(drops=drops, compile=flag)) for flag in (False, True))
    for each in (plain, task):
        each.to(CPU)
    for indices in (range(4), range(4, 8)):
        samples = plain.batch(indices)
        loss, numbers, found = gradients(task, samples)
        expected_loss, _, expected = gradients(plain, samples)
        assert numbers["flux_calls"] == 1
        torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert 0 < graphs() <= 3 * 2 * 2  # three shapes, two kinds of blocks, with and without a mask


def test_without_a_compiler_it_says_so_in_one_line_and_trains(make, monkeypatch, capsys):
    monkeypatch.setattr("squeeze_core.training.compiling.shutil.which", lambda name: None)
    task = make(compile=True)
    task.to(CPU)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "compile is off" in line and "g++" in line
    gradients(task, task.batch(range(2)))


@pytest.mark.parametrize("base", ["nf4", "int8"])
def test_a_base_of_few_bits_trains_and_is_near_the_whole_one(make, base):
    pytest.importorskip("bitsandbytes", reason="BASES OF FEW BITS WERE NOT TESTED: no bitsandbytes")
    whole, few = nudge(make()), nudge(make(base=base))
    few.to(CPU)
    samples = whole.batch(range(2))
    expected, _, _ = gradients(whole, samples)
    loss, _, found = gradients(few, samples)
    assert loss == pytest.approx(float(expected), rel=0.1) and loss != expected
    assert found and all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    weight = few.module.transformer.transformer_blocks[0].ff.net[0].proj.weight
    full = whole.module.transformer.transformer_blocks[0].ff.net[0].proj.weight
    assert weight.numel() * weight.element_size() <= full.numel() * full.element_size() / 3.5


def test_few_bits_without_the_library_are_one_sentence(make, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SqueezeError, match="pip install bitsandbytes"):
        quantized.quantize(make().module.transformer, "nf4")


@pytest.mark.parametrize(
    "setting",
    [
        {"calls": "few"},
        {"gradient_checkpointing": 1},
        {"base": "nf4"},
        pytest.param({"compile": True}, marks=compiled),
    ],
    ids=str,
)
def test_a_resumed_run_is_the_uninterrupted_one_with_every_setting(make, tmp_path, setting):
    if "base" in setting:
        pytest.importorskip("bitsandbytes", reason="BASES OF FEW BITS WERE NOT TESTED: no bitsandbytes")
    whole = make(steps=4, **setting)
    Trainer(whole, whole.config, tmp_path / "whole").run()
    for steps in (2, 4):
        part = make(steps=steps, **setting)
        Trainer(part, part.config, tmp_path / "parts").run(resume=True)
    assert same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))
    assert lines(tmp_path / "parts")[-1]["loss"] == lines(tmp_path / "whole")[-1]["loss"]


def test_only_allowed_kernels_run_inside_a_step(make, monkeypatch):
    """Asked from inside a block, in the forward pass and where it is computed again in the backward pass."""
    task = make()
    seen = []
    block = task.module.transformer.transformer_blocks[0]
    block.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    from squeeze_core.training.attention import allowed

    with allowed(task.config.attention_kernels):
        gradients(task, task.batch(range(1)))
    assert seen == [False, False]
