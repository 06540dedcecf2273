"""What can be known of the true sizes without the memory for them: shapes on the meta device."""

import torch

from squeeze_core.flux.lora import attention_modules
from squeeze_core.training.flux_task import Trained


def test_the_lora_of_flux_dev_has_the_size_that_rank_512_on_its_attention_gives():
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig

    from squeeze_core.dla import Aggregator, DLAConfig

    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
        flux.requires_grad_(False)
        flux.add_adapter(LoraConfig(r=512, lora_alpha=512, target_modules=attention_modules(19, 38)), "squeeze")
        module = Trained(flux, Aggregator(DLAConfig(hidden=3584, layers=29, context=4096)))
    lora = [p for name, p in module.named_parameters() if p.requires_grad and name.startswith("transformer.")]
    assert len(lora) == 2 * (19 * 8 + 38 * 3)
    assert sum(p.numel() for p in lora) == (19 * 8 + 38 * 3) * 512 * 2 * 3072
    assert sum(p.numel() for p in lora) / 1e6 == 836.763648  # 836.8 M, 1.67 GB in bf16
    laps = sum(p.numel() for name, p in module.named_parameters() if ".dla." in name)
    assert 102e6 < laps < 104e6
