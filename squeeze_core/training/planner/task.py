"""Cross-entropy on thought and plan, as the MLLM answers them when it plans; the prompt counts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...data.examples import Example, Walk
from ...mllm.backbone import Prompt
from ...mllm.batches import joined
from ...mllm.family import TransformersBackbone
from ...mllm.prompt import ANSWER_END
from ...planning.adapter import MODULES
from ...planning.adapter import PlannerConfig as AdapterConfig
from ...planning.plan import ScenePlan
from ...planning.prompt import plan_prompt
from ..settings import LoopSettings
from ..task import Task
from .config import PlannerTraining

NAME = "planner"  # of the LoRA
PREFIX = "mllm.model.language_model."
# Of PlannerTraining, besides the loop's: what may change when a run goes on, and what is said otherwise.
_ELSEWHERE = {"gradient_checkpointing", "models", "data", "lora", "tiles"} | set(LoopSettings.model_fields)


class Planner(nn.Module):
    """The MLLM, frozen but for a LoRA on its language layers."""

    def __init__(self, mllm: nn.Module) -> None:
        super().__init__()
        self.mllm = mllm


@dataclass(frozen=True)
class Sample:
    prompt: Prompt
    answer: str


class PlannerTask(Task):
    """See `build.planner_task`."""

    module: Planner

    def __init__(
        self, config: PlannerTraining, backbone: TransformersBackbone, walk: Walk[Example], adapter: AdapterConfig
    ) -> None:
        self.config, self.backbone, self.walk, self.adapter = config, backbone, walk, adapter
        self.module = Planner(backbone.model)
        if config.gradient_checkpointing:
            backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def batch(self, indices: Sequence[int]) -> list[Sample]:
        return [self._sample(self.walk.example(index)) for index in indices]

    def loss(self, batch: list[Sample]) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        backbone, rows, ends = self.backbone, [], []
        for sample in batch:
            inputs = backbone.inputs(sample.prompt, "cpu")
            answer = torch.tensor([self._tokens(sample.answer)])
            ends.append((inputs["input_ids"].shape[1], answer.shape[1]))
            rows.append(_followed(inputs, answer))
        inputs = {name: value.to(self.device) for name, value in joined(rows, backbone._padding()).items()}
        backbone._forget_pictures()
        states = backbone.model.model(**inputs, use_cache=False).last_hidden_state
        # Of the answers alone: logits are as wide as the vocabulary.
        said = torch.cat([states[row, begin - 1 : begin - 1 + count] for row, (begin, count) in enumerate(ends)])
        wanted = torch.cat(
            [inputs["input_ids"][row, begin : begin + count] for row, (begin, count) in enumerate(ends)]
        )
        logits = backbone.model.lm_head(said).float()
        right = (logits.detach().argmax(-1) == wanted).float().mean()
        return F.cross_entropy(logits, wanted), {"right_tokens": right, "answer_tokens": len(wanted) / len(batch)}

    def identity(self) -> dict[str, Any]:
        return {
            "planner": self.adapter.model_dump(mode="json"),
            "lora_alpha": self.config.lora.alpha,
            "data": self.walk.identity(),
            **self.config.model_dump(mode="json", exclude=_ELSEWHERE),
        }

    def _sample(self, example: Example) -> Sample:
        plan = ScenePlan.parse(example.plan)
        return Sample(plan_prompt(example.prompt, example.references, self.config.tiles), plan.answer())

    def _tokens(self, answer: str) -> list[int]:
        return self.backbone.tokenizer(answer + ANSWER_END, add_special_tokens=False)["input_ids"]


def check(example: Example) -> None:
    """Raises `SqueezeError` for an example that has no plan."""
    ScenePlan.parse(example.plan, f"The plan of {example.name}")


def attach(backbone: TransformersBackbone, config: PlannerTraining) -> None:
    """Freeze the MLLM and put a new LoRA on its language layers, float32."""
    from peft import LoraConfig, inject_adapter_in_model

    backbone.model.requires_grad_(False)
    alpha: Any = config.lora.alpha or config.lora.rank
    settings = LoraConfig(r=config.lora.rank, lora_alpha=alpha, target_modules=list(MODULES))
    inject_adapter_in_model(settings, backbone.model.model.language_model, adapter_name=NAME)
    for parameter in backbone.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _followed(inputs: Mapping[str, torch.Tensor], answer: torch.Tensor) -> dict[str, torch.Tensor]:
    """The prompt's inputs with the answer behind it."""
    more = {
        "input_ids": answer,
        "attention_mask": torch.ones_like(answer),
        "mm_token_type_ids": torch.zeros_like(answer),
    }
    return {
        name: torch.cat([value, more[name].to(value)], dim=1) if name in more else value
        for name, value in inputs.items()
    }
