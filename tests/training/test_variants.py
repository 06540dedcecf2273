"""Every ablation of the aggregator trains, in both precisions, with all of its weights in every batch."""

import pytest
import torch

from squeeze_core import adapter
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.export import export
from squeeze_core.training.loop import Trainer

from . import tiny

VARIANTS = {
    "dual": {"lap": {"heads": 3}},
    "dual_residual": {"lap": {"heads": 3, "residual": True}},
    "dual_some_layers": {"text_layers": "0-2", "image_layers": "4-6", "lap": {"heads": 3}},
    "single": {"variant": "single", "text_layers": "0-3", "image_layers": "0-3", "lap": {"heads": 3}},
    "last_layer": {"variant": "last_layer"},
    "blend_vit": {"variant": "blend_vit"},
    "mix_vit": {"variant": "mix_vit"},
    "large_lap": {"lap": {"heads": 2, "blocks": 2, "mlp": True, "bottleneck": 32, "layer_embedding": True}},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_trains_and_is_exported(models, uno, tmp_path, name, precision):
    values = tiny.config_values(models, uno, dla=VARIANTS[name], steps=1, batch_size=2, precision=precision)
    config = parse_config(values)
    task = squeeze_task(config)
    before = {n: p.detach().clone() for n, p in task.module.named_parameters() if p.requires_grad}
    Trainer(task, config, tmp_path / "run").run()
    changed = {n for n, p in task.module.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert {"aggregator.projector.linear.weight", "aggregator.projector.norm.weight"} <= changed
    export(tmp_path / "run", tmp_path / "a.safetensors")
    assert adapter.load(tmp_path / "a.safetensors").config.dla == task.adapter.dla


@pytest.mark.parametrize("name", VARIANTS)
def test_no_weight_of_a_variant_is_left_out_of_a_batch_without_contexts(models, uno, name):
    drops = {"pictures": 1.0, "references": 1.0, "context": 1.0}
    task = squeeze_task(parse_config(tiny.config_values(models, uno, dla=VARIANTS[name], drops=drops)))
    task.loss(task.batch(range(2)))[0].backward()
    assert all(p.grad is not None for p in task.module.parameters() if p.requires_grad)
