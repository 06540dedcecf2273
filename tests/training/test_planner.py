"""The planner's training (f1) on the untrained toy MLLM, and the planner that comes of it."""

import json

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from squeeze_core.cli import app
from squeeze_core.config_files import checked
from squeeze_core.data.music.build import build
from squeeze_core.data.music.config import MusicConfig
from squeeze_core.data.sources.music import Music
from squeeze_core.errors import SqueezeError
from squeeze_core.mllm.loading import load as load_mllm
from squeeze_core.planning import adapter
from squeeze_core.planning.plan import ScenePlan
from squeeze_core.planning.planner import plan_scene
from squeeze_core.planning.prompt import plan_prompt
from squeeze_core.toyworld.music import ToyRoles
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.export import export
from squeeze_core.training.loop import Trainer
from squeeze_core.training.planner.build import planner_task

from .test_loop import lines, same, saved


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    settings = checked(
        {"models": {"world": "toyworld"}, "samples": 4, "subjects": [2, 2], "resolution": 128}, MusicConfig
    )
    out = tmp_path_factory.mktemp("scenes") / "toys"
    build(out, settings, ToyRoles(settings))
    return out


@pytest.fixture(scope="module")
def make(models, scenes):
    def make(**changes):
        values = {
            "stage": "planner",
            "models": {"mllm": str(models / "mllm"), "mllm_dtype": "fp32"},
            "data": [{"kind": "music", "folder": str(scenes)}],
            "steps": 4,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "lora": {"rank": 4, "alpha": 8},
            "save_every": 2,
            "device": "cpu",
            "workers": 0,
            "tensorboard": False,
        }
        return planner_task(parse_config({**values, **changes}))

    return make


@pytest.fixture(scope="module")
def trained(make, tmp_path_factory):
    """A task after a run, its folder, and the planner that was exported."""
    run = tmp_path_factory.mktemp("planner") / "run"
    task = make()
    Trainer(task, task.config, run).run()
    export(run, run / "planner.safetensors")
    return task, run, adapter.load(run / "planner.safetensors")


def test_the_loss_is_of_thought_and_plan_alone(make):
    task = make()
    samples = task.batch([0, 1])
    tokens, losses = [], []
    for sample in samples:
        assert ScenePlan.parse(json.loads(sample.answer)).thought
        head = task.backbone.inputs(sample.prompt, "cpu")
        tail = task.backbone.tokenizer(sample.answer + "<|im_end|>", return_tensors="pt")["input_ids"]
        ids = torch.cat([head["input_ids"], tail], 1)
        logits = task.backbone.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=head["pixel_values"]
        ).logits[0]
        begin = head["input_ids"].shape[1]
        losses.append(F.cross_entropy(logits[begin - 1 : -1], ids[0, begin:], reduction="sum"))
        tokens.append(tail.shape[1])
    loss, numbers = task.loss(samples)
    assert loss.item() == pytest.approx(float(sum(losses)) / sum(tokens), rel=1e-5)
    assert numbers["answer_tokens"] == sum(tokens) / 2


def test_only_the_lora_on_the_language_layers_is_trained(make):
    task = make(gradient_checkpointing=False)
    task.loss(task.batch([0]))[0].backward()
    for name, parameter in task.module.named_parameters():
        is_lora = ".lora_" in name
        assert parameter.requires_grad == is_lora and (not is_lora or "language_model.layers" in name)
        assert not is_lora or parameter.dtype == torch.float32
    names = {n.rpartition(".lora_")[0] for n, p in task.module.named_parameters() if p.requires_grad}
    assert len(names) == 7 * task.backbone.identity.layers


def test_layers_computed_again_give_the_same_gradients(make):
    gradients = []
    for again in (False, True):
        task = make(gradient_checkpointing=again)
        task.module.train()
        task.loss(task.batch([0, 1]))[0].backward()
        gradients.append({n: p.grad for n, p in task.module.named_parameters() if p.grad is not None})
    one, other = gradients
    assert one.keys() == other.keys() and one
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_it_learns(make, tmp_path):
    task = make(steps=12, learning_rate=1e-2, save_every=12)
    Trainer(task, task.config, tmp_path / "run").run()
    log = lines(tmp_path / "run")
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]


def test_resumed_it_ends_as_if_never_stopped(make, trained, tmp_path):
    _, whole, _ = trained
    for steps, resume in ((2, False), (4, True)):
        task = make(steps=steps)
        Trainer(task, task.config, tmp_path / "parts").run(resume)
    assert same(saved(whole), saved(tmp_path / "parts"))


def test_the_planner_that_is_exported_says_what_was_trained(trained, models):
    task, _, planner = trained
    sample = task.batch([1])[0]
    backbone = load_mllm(models / "mllm", "fp32")
    inputs = backbone.inputs(sample.prompt, "cpu")
    with torch.no_grad():
        task.module.eval()
        wanted, plain = (each.model(**inputs).logits for each in (task.backbone, backbone))
        with planner.heard(backbone):
            heard = backbone.model(**inputs).logits
        after = backbone.model(**inputs).logits
    assert torch.allclose(heard, wanted, atol=1e-4) and (heard - plain).abs().max() > 1e-3
    assert torch.equal(after, plain)
    assert planner.config.trained_by.endswith("4 steps") and planner.config.rank == 4


def test_with_it_the_toy_mllm_plans_and_without_it_the_rule_does(trained, models, scenes):
    _, _, planner = trained
    backbone, example = load_mllm(models / "mllm", "fp32"), Music(scenes)[0]
    generate, asked = backbone.generate_json, []
    backbone.generate_json = lambda *given, **more: asked.append(given) or generate(*given, **more)
    plan_scene(example.prompt, example.references, backbone)
    assert not asked
    try:
        plan_scene(example.prompt, example.references, backbone, subjects=2, temperature=0, adapter=planner)
    except SqueezeError as error:
        assert "candidates can be used" in str(error)  # trained for four steps, it may plan nonsense
    assert asked[0][0] == plan_prompt(example.prompt, example.references)


def test_another_mllm_is_refused(trained, models):
    _, _, planner = trained
    backbone = load_mllm(models / "mllm", "fp32")
    other = adapter.PlannerAdapter(
        planner.config.model_copy(update={"mllm": type(backbone.identity)("internvl", 8, 2, "0" * 16, "X")}), {}
    )
    with pytest.raises(SqueezeError, match="trained on X"):
        plan_scene("the toy of picture 1", [task_picture()], backbone, "mllm", adapter=other)


def task_picture():
    from PIL import Image

    return Image.new("RGB", (64, 64), "red")


def test_files_that_are_no_planner_are_refused(trained, tmp_path):
    from squeeze_core.toyworld.world import SHIPPED

    with pytest.raises(SqueezeError, match="no planner of this project"):
        adapter.load(SHIPPED / "adapter.safetensors")
    with pytest.raises(SqueezeError, match="There is no planner"):
        adapter.load(tmp_path / "none.safetensors")
    _, _, planner = trained
    bad = {name: tensor * float("nan") for name, tensor in planner.lora.items()}
    with pytest.raises(SqueezeError, match="not finite"):
        adapter.save(tmp_path / "bad.safetensors", planner.config, bad)
    assert not (tmp_path / "bad.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": {"rank": 0}}, "nothing to train"),
        ({"sharding": "fsdp2"}, "fits one GPU"),
        ({"data": [{"kind": "uno", "folder": "x"}]}, "data.0"),
        ({"thoughts": True}, "unknown key"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(make, changes, said):
    with pytest.raises(SqueezeError, match=said):
        make(**changes)


def test_plans_are_made_and_scored_by_commands(trained, models, scenes, tmp_path):
    _, run, _ = trained
    out = tmp_path / "planned"
    mllm = ["--mllm", str(models / "mllm"), "--trained", str(run / "planner.safetensors")]
    runner = CliRunner()
    rule = runner.invoke(app(), ["eval", "make-plans", str(scenes), "--count", "3", "--out", str(out)])
    assert rule.exit_code == 0, rule.output
    assert len(list((out / "plans").iterdir())) == len(list((out / "truth").iterdir())) == 3
    folders = [str(out / "plans"), "--truth", str(out / "truth")]
    scored = runner.invoke(app(), ["eval", "plans", *folders, "--out", str(tmp_path / "scores")])
    assert scored.exit_code == 0 and "grid_iou" in scored.output
    again = ["eval", "make-plans", str(scenes), "--count", "1", "--out", str(tmp_path / "other"), *mllm]
    assert runner.invoke(app(), again).exit_code == 0
    refused = runner.invoke(app(), ["eval", "make-plans", str(scenes), *mllm[2:]])
    assert isinstance(refused.exception, SqueezeError) and "--mllm" in str(refused.exception)
