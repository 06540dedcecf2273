"""MUSIC's f2: stage 2 with plans, and that what is trained is what inference does."""

import pytest
import torch

from squeeze_core.config_files import checked
from squeeze_core.data.music.build import build
from squeeze_core.data.music.config import MusicConfig
from squeeze_core.data.sources.music import Music
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.conditioning import Conditioning
from squeeze_core.flux.model import velocity
from squeeze_core.generation import GenerationSettings
from squeeze_core.pipeline import SqueezePipeline
from squeeze_core.planning.plan import ScenePlan
from squeeze_core.scene import placed_subjects, scene_prompts
from squeeze_core.toyworld.music import ToyRoles
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.loop import Trainer
from squeeze_core.training.planned import planned

from . import tiny
from .test_loop import same, saved
from .test_squeeze_task import ALWAYS, gradients, nudge

F2 = {"separate_encodes": True, "layout": True}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    values = {"models": {"world": "toyworld"}, "samples": 3, "subjects": [2, 3], "resolution": 128}
    settings = checked(values, MusicConfig)
    out = tmp_path_factory.mktemp("scenes") / "toys"
    build(out, settings, ToyRoles(settings))
    return out


@pytest.fixture
def make(models, scenes, uno):
    def make(**changes):
        data = [{"kind": "music", "folder": str(scenes)}]
        values = tiny.config_values(models, uno, **{"data": data, "drops": ALWAYS, **changes})
        return squeeze_task(parse_config(values))

    return make


@pytest.mark.parametrize("plan_text", [False, True])
def test_the_contexts_and_rules_are_those_of_a_generated_scene(make, scenes, plan_text):
    """As `generate_scene` joins and binds them, for one sample, by its own functions."""
    task = nudge(make(**F2, plan_text=plan_text))
    sample = task.batch([0])[0]
    (heard,) = task._heard([sample])
    music = Music(scenes)
    example = next(
        e for e in (music[n] for n in range(len(music))) if e.references and e.name == task.walk.example(0).name
    )
    plan = ScenePlan.parse(example.plan)
    module = task.module
    pipeline = SqueezePipeline(module.transformer, task.vae, task.mllm, module.aggregator, task.adapter)
    subjects = placed_subjects(plan, example.references)
    shared = f"{plan.scene}\n{plan.answer()}" if plan_text else ""
    prompts = scene_prompts(pipeline, subjects, GenerationSettings(), shared)
    assert [prompt.text for prompt in prompts] == [prompt.text for prompt in sample.prompts]
    contexts = [pipeline.aggregate(states)[0] for states in pipeline.encode_many(prompts)]
    assert torch.allclose(torch.cat(contexts)[None], heard.context, atol=1e-5)
    first = 0 if plan_text else 1
    assert heard.rules.words == tuple((first + n, len(each)) for n, each in enumerate(contexts))
    assert [number for number, _ in heard.rules.places] == list(range(1, len(subjects) + 1))
    assert [rule.owner for rule in heard.rules.references] == list(range(1, len(subjects) + 1))


def test_the_loss_with_a_layout_is_that_of_the_velocity_under_its_rules(make):
    task = nudge(make(**F2))
    samples = task.batch([0, 1])
    loss, numbers = task.loss(samples)
    errors = []
    for sample, heard in zip(samples, task._heard(samples)):
        picture = task._scaled(sample.target)
        mixed = (1 - sample.sigma) * picture + sample.sigma * sample.noise
        conditioning = Conditioning(
            heard.context,
            torch.zeros(1, 768),
            task.config.guidance,
            tuple(task._scaled(each) for each in sample.references),
            task.config.placement,
            rules=heard.rules,
        )
        made = velocity(task.module.transformer, mixed, torch.tensor([sample.sigma]), conditioning)
        errors.append((made - (sample.noise - picture)).square().mean())
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    assert numbers["flux_calls"] == 2


def test_layout_changes_what_is_learned_and_layers_computed_again_see_it_too(make):
    found = []
    for changes in ({"layout": False}, {"gradient_checkpointing": False}, {"gradient_checkpointing": True}):
        task = nudge(make(**{**F2, **changes}))
        found.append(gradients(task, task.batch([0, 1])))
    (free, _, _), (bound, _, one), (again, _, other) = found
    assert abs(free - bound) > 1e-5 and bound == again
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_each_switch_does_one_thing(make):
    plain = make().batch([0])[0]
    assert plain.plan is None and len(plain.prompts) == 1
    separate = make(separate_encodes=True).batch([0])[0]
    assert len(separate.prompts) == len(separate.references) and not separate.plan.places
    assert all(len(prompt.images) == 1 for prompt in separate.prompts)
    text = make(plan_text=True).batch([0])[0]
    (prompt,) = text.prompts
    assert prompt.text.startswith(plain.prompt.text) and '"grid":' in prompt.text
    layout = make(layout=True).batch([0])[0]
    assert layout.plan.places and layout.plan.owners == (0,) and len(layout.prompts) == 1


def test_drops_reach_every_part(make):
    blind = make(**F2, drops={**ALWAYS, "pictures": 1.0}).batch([0])[0]
    assert all(not prompt.images for prompt in blind.prompts) and blind.references
    task = make(**F2, drops={**ALWAYS, "context": 1.0})
    silent = task.batch([0])[0]
    (heard,) = task._heard([silent])
    assert silent.prompts == () and heard.context.shape[1] == 1 and heard.rules.words == ()
    assert torch.isfinite(task.loss([silent])[0])
    unseen = make(**F2, drops={**ALWAYS, "references": 1.0})
    (heard,) = unseen._heard(unseen.batch([0]))
    assert heard.rules.references == () and torch.isfinite(unseen.loss(unseen.batch([0]))[0])


def test_examples_without_plans_are_trained_as_ever(make, uno, scenes):
    data = [{"kind": "uno", "folder": str(uno)}, {"kind": "music", "folder": str(scenes)}]
    task = make(**F2, data=data)
    samples = task.batch(range(6))
    assert {sample.plan is None for sample in samples} == {True, False}
    assert torch.isfinite(task.loss(samples)[0])


def test_resumed_it_ends_as_if_never_stopped(make, tmp_path):
    for steps, run, resume in ((4, "whole", False), (2, "parts", False), (4, "parts", True)):
        task = make(**F2, plan_text=True, steps=steps)
        Trainer(task, task.config, tmp_path / run).run(resume)
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layout": True, "compile": True}, "compile cannot follow"),
        ({"layout": True, "vae_references": False, "drops": {}}, "nothing to bind"),
    ],
)
def test_what_cannot_be_together_is_said(make, changes, said):
    with pytest.raises(SqueezeError, match=said):
        make(**changes)


def test_an_example_without_a_plan_has_none(scenes):
    from dataclasses import replace

    example = replace(Music(scenes)[0], plan=None)
    assert planned(example, separate_encodes=True, layout=True, plan_text=True) is None
