import pytest
import torch
from safetensors.torch import load_file, save_file

from squeeze_core import adapter
from squeeze_core.errors import SqueezeError
from squeeze_core.flux import loading
from squeeze_core.flux.conditioning import Conditioning
from squeeze_core.flux.lora import apply_lora
from squeeze_core.flux.model import spec_of, velocity
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.checkpoint import Checkpoints
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.export import export
from squeeze_core.training.loop import Trainer

from . import tiny
from .regression import Regression, settings


def config(models, uno, **changes):
    return parse_config(tiny.config_values(models, uno, **{"lora": {"rank": 4, "alpha": 8}, "ema": 0.5, **changes}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models, uno):
    """The task after a run, and the run's folder; alpha is not the rank, and there is an average."""
    run = tmp_path_factory.mktemp("trained") / "run"
    settings = config(models, uno)
    task = squeeze_task(settings)
    Trainer(task, settings, run).run()
    return task, run


def test_the_exported_adapter_holds_the_trained_bits(trained, tmp_path):
    task, run = trained
    export(run, tmp_path / "a.safetensors", average=False)
    loaded = adapter.load(tmp_path / "a.safetensors")
    weights = dict(task.module.named_parameters())
    for name, tensor in loaded.aggregator.state_dict().items():
        assert torch.equal(tensor, weights[f"aggregator.{name}"]), name
    assert len(loaded.lora) == 22
    for name, tensor in loaded.lora.items():
        scale = 2 if ".lora_B." in name else 1  # alpha / rank, a power of two: exact
        assert torch.equal(tensor, weights[name.removesuffix(".weight") + ".squeeze.weight"] * scale), name


def test_flux_with_the_exported_lora_is_the_flux_that_was_trained(trained, tmp_path, models):
    task, run = trained
    export(run, tmp_path / "a.safetensors", average=False)
    plain = loading.load_flux(models / "flux", "fp32")
    before = plain.state_dict()["transformer_blocks.0.attn.to_q.weight"].clone()
    apply_lora(plain, adapter.load(tmp_path / "a.safetensors").lora, fuse=True)
    assert not torch.equal(plain.state_dict()["transformer_blocks.0.attn.to_q.weight"], before)
    generator = torch.Generator().manual_seed(0)
    heard = Conditioning(torch.randn(1, 5, 32, generator=generator), torch.zeros(1, 768), 1.0)
    latents, sigma = torch.randn(1, 16, 8, 8, generator=generator), torch.tensor(0.7)
    with torch.no_grad():
        torch.testing.assert_close(
            velocity(plain, latents, sigma, heard),
            velocity(task.module.transformer, latents, sigma, heard),
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_average_is_exported_unless_refused(trained, tmp_path):
    _, run = trained
    export(run, tmp_path / "average.safetensors")
    export(run, tmp_path / "last.safetensors", average=False)
    average, last = (load_file(tmp_path / f"{name}.safetensors") for name in ("average", "last"))
    kept = load_file(Checkpoints(run / "checkpoints").latest() / "ema.safetensors")
    assert torch.equal(average["projector.linear.weight"], kept["aggregator.projector.linear.weight"])
    assert not torch.equal(average["projector.linear.weight"], last["projector.linear.weight"])


def test_saving_a_loaded_export_again_gives_the_same_bits(trained, tmp_path):
    _, run = trained
    export(run, tmp_path / "a.safetensors", "bf16")
    loaded = adapter.load(tmp_path / "a.safetensors")
    adapter.save(tmp_path / "b.safetensors", loaded.config, loaded.aggregator.state_dict(), loaded.lora)
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert all(tensor.dtype == torch.bfloat16 for tensor in a.values())
    assert adapter.read_config(tmp_path / "a.safetensors") == adapter.read_config(tmp_path / "b.safetensors")


def test_the_config_tells_what_inference_needs(trained, tmp_path):
    task, run = trained
    export(run, tmp_path / "a.safetensors")
    found = adapter.read_config(tmp_path / "a.safetensors")
    found.check_mllm(task.mllm.identity)
    found.check_dit(spec_of(task.module.transformer))
    assert (found.lora_rank, found.placement, found.guidance, found.mllm.name) == (4, "uxo", 2.5, "mllm")
    assert "4 steps" in found.trained_by and "MLLM and VAE" in found.trained_by


def test_an_adapter_of_stage_1_says_that_the_mllm_speaks_alone(trained, tmp_path, models, uno):
    """FLUX has not met reference tokens: with the paper's gate its pictures would be those of no model."""
    run = tmp_path / "run"
    stage_1 = config(models, uno, vae_references=False, steps=1, drops={"pictures": 0.25, "context": 0.2})
    Trainer(squeeze_task(stage_1), stage_1, run).run()
    export(run, tmp_path / "1.safetensors")
    export(trained[1], tmp_path / "2.safetensors")
    gates = [adapter.read_config(tmp_path / f"{stage}.safetensors").gate for stage in (1, 2)]
    assert [(gate.tau_1, gate.tau_2) for gate in gates] == [(0.0, 0.0), (0.95, 0.85)]


def test_a_run_may_begin_with_an_exported_adapter(trained, tmp_path, models, uno):
    task, run = trained
    export(run, tmp_path / "a.safetensors", average=False)
    begun = squeeze_task(config(models, uno, init=str(tmp_path / "a.safetensors")))
    weights = dict(task.module.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in begun.module.named_parameters())


def test_an_adapter_of_another_rank_is_no_beginning(trained, tmp_path, models, uno):
    export(trained[1], tmp_path / "a.safetensors")
    with pytest.raises(SqueezeError, match=r"shape \[4, 128\].*\[8, 128\]"):
        squeeze_task(config(models, uno, init=str(tmp_path / "a.safetensors"), lora={"rank": 8}))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), None])
def test_what_is_not_finite_or_empty_is_not_exported(trained, tmp_path, poison):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    path = Checkpoints(run / "checkpoints").latest() / "ema.safetensors"
    tensors = load_file(path)
    name = "aggregator.projector.linear.bias"
    tensors[name] = torch.zeros(0) if poison is None else tensors[name].index_fill(0, torch.tensor([3]), poison)
    save_file(tensors, path)
    with pytest.raises(SqueezeError, match=r"projector\.linear\.bias"):
        export(run, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(SqueezeError, match="has no checkpoint"):
        export(tmp_path, tmp_path / "a.safetensors")
    Trainer(Regression(), settings(1), tmp_path / "run").run()
    with pytest.raises(SqueezeError, match="no adapter"):
        export(tmp_path / "run", tmp_path / "a.safetensors")
