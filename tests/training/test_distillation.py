"""Stage 0, on the smallest models of the real architectures."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from squeeze_core import adapter
from squeeze_core.data.told import Told, described
from squeeze_core.dla import Aggregator, DLAConfig
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.conditioning import Conditioning
from squeeze_core.flux.model import velocity
from squeeze_core.lap import LAPConfig
from squeeze_core.mllm.backbone import Prompt
from squeeze_core.mllm.states import LayerStates
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.distillation import fit, teacher
from squeeze_core.training.distillation.attention import divergence
from squeeze_core.training.distillation.build import distill_task
from squeeze_core.training.distillation.teacher import Said
from squeeze_core.training.export import export
from squeeze_core.training.loop import Trainer

from .. import clip_text, t5_text
from . import tiny
from .test_loop import same, saved

TEXTS = ("a photo of the red toy on a beach", "the blue star at night", "a dog", "the toy and a star")
RED = Image.new("RGB", (64, 48), "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """models/ with T5 and CLIP beside FLUX, texts.txt, and pictures/ with words for two of three."""
    here = tmp_path_factory.mktemp("stage0")
    models = tiny.write_models(here / "models")
    t5_text.write(models / "flux", tiny.FLUX["joint_attention_dim"])
    clip_text.write(models / "flux")
    (here / "texts.txt").write_text("\n".join(TEXTS))
    (here / "pictures").mkdir()
    for name in ("one", "two", "three"):
        RED.save(here / "pictures" / f"{name}.png")
    (here / "pictures" / "one.txt").write_text("a red toy")
    row = '{"picture": "two.png", "words": "a red star.", "prompt": "the toy at night"}\n'
    (here / "pictures" / "captions.jsonl").write_text(row)
    return here


def values(folder, **changes):
    shared = tiny.config_values(folder / "models", folder)
    names = ("models", "steps", "batch_size", "save_every", "learning_rate", "dla", "resolution", "device")
    return {
        **{name: shared[name] for name in (*names, "workers", "tensorboard")},
        "stage": 0,
        "data": [
            {"kind": "texts", "file": str(folder / "texts.txt")},
            {"kind": "described", "folder": str(folder / "pictures")},
        ],
        "words": 16,
        "distillation": {"fit": 8},
        **changes,
    }


@pytest.fixture
def make(folder):
    return lambda **changes: distill_task(parse_config(values(folder, **changes)))


def equal(one, other):
    return all(
        torch.equal(*pair) for pair in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_loss_is_the_difference_of_two_predictions_written_out(make):
    task = make(guidance=2.0)
    samples = task.batch(range(4))
    assert {bool(sample.prompt.images) for sample in samples} == {True, False}
    loss, numbers = task.loss(samples)
    transformer = task.module.transformer
    errors = []
    for sample in samples:
        ids = task.words.tokenizer(sample.told.words, padding="max_length", max_length=16, return_tensors="pt")
        said = task.words.model(input_ids=ids["input_ids"]).last_hidden_state.to(torch.bfloat16).float()
        states = task.mllm.encode(sample.prompt)
        heard, _ = task.module.aggregator(states.states.float(), states.image_mask)
        taught = Conditioning(said, task.clip.encode([sample.told.words]), 2.0)
        student = Conditioning(heard[None], torch.zeros(1, 768), 2.0)
        one = torch.ones(1)
        difference = velocity(transformer, sample.noise, one, student) - velocity(
            transformer, sample.noise, one, taught
        )
        errors.append(difference.square().mean())
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    assert numbers["flux_calls"] >= 1


def test_a_student_that_says_what_the_teacher_says_has_no_loss(make):
    task = make(pooled="clip_l", distillation={"fit": 0, "attention": 1.0}, data=make_texts(make))
    samples = task.batch(range(3))
    said = task.words.encode([sample.told.words for sample in samples])
    task._contexts = lambda prompts: [each.states[None] for each in said]
    loss, numbers = task.loss(samples)
    assert abs(loss.item()) < 1e-8 and abs(float(numbers["attention"])) < 1e-8


def make_texts(make):
    return [source for source in make().config.model_dump()["data"] if source["kind"] == "texts"]


def test_along_the_teachers_sampling_each_sample_stops_at_its_own_level(make):
    task = make(distillation={"fit": 0, "sigmas": "trajectory", "steps": 4})
    samples = task.batch(range(6))
    assert len({sample.level for sample in samples}) > 1
    taught = task._taught(samples)
    transformer, sigmas = task.module.transformer, task._sigmas
    for number, sample in enumerate(samples):
        heard = Conditioning(
            task.words.encode([sample.told.words])[0].states[None], task.clip.encode([sample.told.words]), 3.5
        )
        latents = sample.noise
        for level in range(sample.level):
            step = sigmas[level + 1] - sigmas[level]
            latents = latents + step * velocity(transformer, latents, sigmas[level], heard)
        assert torch.allclose(taught.latents[number : number + 1], latents, atol=1e-5)
        assert taught.sigma[number] == sigmas[sample.level]


def test_attention_is_compared_once_also_where_blocks_are_computed_again(make):
    losses, gradients = [], []
    for again in (False, True):
        task = make(distillation={"fit": 0, "attention": 0.5}, gradient_checkpointing=again)
        loss, numbers = task.loss(task.batch(range(2)))
        loss.backward()
        assert loss.item() == pytest.approx(float(numbers["velocity"]) + 0.5 * float(numbers["attention"]))
        losses.append(loss.item())
        gradients.append(task.module.aggregator.projector.linear.weight.grad)
    assert losses[0] == losses[1] and torch.allclose(*gradients, atol=1e-7) and gradients[0].abs().max() > 0


def test_the_divergence_is_kl_of_softmaxed_normalised_outputs():
    one, other = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 5)
    other[..., 0] = 1.0

    def softmaxed(x):
        return torch.softmax(
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5) ** 0.5, -1
        )

    theirs, ours = softmaxed(other), softmaxed(one)
    expected = (theirs * (theirs / ours).log()).sum(-1).mean(1)
    assert torch.allclose(divergence([one, one], [other, other]), expected, atol=1e-6)
    assert torch.allclose(divergence([one], [one]), torch.zeros(2), atol=1e-7)


class TestFit:
    def test_what_each_token_is_to_say(self):
        told = described(RED, "a red toy.", "the toy at night", "x")
        assert told.words == "a red toy. the toy at night" and told.words[told.prompt_at :] == told.prompt
        spans = ((0, 1), (1, 5), (5, 9), (9, 10), (10, 14), (14, 18), (18, 21), (21, 27), (27, 27))
        said = Said(torch.arange(9.0)[:, None] + 1, spans)
        #          chat, picture, "the", " toy", " at night" as one, chat
        student = [None, None, (0, 3), (3, 7), (7, 16), None]
        image = torch.tensor([False, True] + [False] * 4)
        wanted = fit.target(told, student, image, said)
        assert wanted[:, 0].tolist() == [0, (1 + 2 + 3) / 3, 5, 6, 7.5, 0]
        alone = fit.target(described(RED, "a red toy", None, "x"), student, image, said)
        assert alone[:, 0].tolist() == [0, 2, 0, 0, 0, 0]

    def test_tokens_know_their_characters(self, make):
        mllm = make().mllm
        for prompt in (
            Prompt("the red toy at night"),
            Prompt("assistant the toy", (RED,), "the toy"),  # words that the chat also has
        ):
            ids, spans = mllm.inputs(prompt, "cpu")["input_ids"][0].tolist(), mllm.spans(prompt)
            assert len(ids) == len(spans)
            told = [(token, span) for token, span in zip(ids, spans) if span is not None]
            assert "".join(prompt.text[begin:end] for _, (begin, end) in told) == prompt.text
            for token, (begin, end) in told:
                assert mllm.tokenizer.decode([token]).strip() == prompt.text[begin:end].strip()

    def test_a_linear_map_is_found_again(self):
        aggregator = Aggregator(DLAConfig(hidden=12, layers=3, context=7, lap=LAPConfig(heads=3)))
        true = torch.nn.Linear(12, 7)
        sums = fit.Projection(aggregator)
        generator = torch.Generator().manual_seed(0)
        for _ in range(30):
            states = LayerStates(torch.randn(3, 9, 12, generator=generator), torch.arange(9) < 4, "x")
            pooled, _ = aggregator.dla(states.states, states.image_mask)
            sums.add(fit.Pair(states, true(aggregator.projector.norm(pooled)).detach()))
        assert sums.set() > 0.999
        assert torch.allclose(aggregator.projector.linear.weight, true.weight, atol=2e-2)
        assert torch.allclose(aggregator.projector.linear.bias, true.bias, atol=2e-2)

    def test_a_new_run_begins_with_it_and_one_with_init_does_not(self, make, tmp_path, capsys):
        plain, fitted = make(), make()
        fitted.begin()
        assert "explains" in capsys.readouterr().err
        assert fitted.loss(fitted.batch(range(8)))[0] < plain.loss(plain.batch(range(8)))[0]
        adapter.save(tmp_path / "a.safetensors", fitted.adapter, fitted.module.aggregator.state_dict(), {})
        begun = make(init=str(tmp_path / "a.safetensors"))
        begun.begin()
        assert equal(begun.module.aggregator, fitted.module.aggregator)


class TestTeacher:
    def test_states_are_kept_by_text_and_made_again_where_broken(self, folder, tmp_path):
        plain = teacher.load(folder / "models" / "flux", 16)
        kept = teacher.load(folder / "models" / "flux", 16, str(tmp_path))
        first = kept.encode(TEXTS)
        (broken, *_), files = sorted(tmp_path.rglob("*.safetensors")), list(tmp_path.rglob("*.safetensors"))
        assert len(files) == len(TEXTS)
        broken.write_bytes(b"half")
        calls = []
        kept.model.register_forward_hook(lambda *given: calls.append(1))
        for one, other, bare in zip(kept.encode(TEXTS), first, plain.encode(TEXTS)):
            assert torch.equal(one.states, other.states) and torch.equal(one.states, bare.states)
            assert one.spans == bare.spans and one.states.shape == (16, 32)
        assert len(calls) == 1

    def test_other_weights_or_lengths_have_other_entries(self, folder):
        one, other = (teacher.load(folder / "models" / "flux", length) for length in (16, 8))
        assert one.identity != other.identity
        with torch.no_grad():
            other.length = 16
            other.model.encoder.final_layer_norm.weight.add_(1)
        assert one.identity != teacher.T5Words(other.model, other.tokenizer, 16).identity

    @pytest.mark.parametrize("part", ["text_encoder", "nothing"])
    def test_what_is_no_t5_is_said(self, folder, tmp_path, part):
        with pytest.raises(SqueezeError, match=r"hf download .*text_encoder_2"):
            teacher.load(folder / "models" / "flux" / part, 16)

    def test_a_t5_of_another_width_is_said(self, folder, tmp_path):
        t5_text.write(tmp_path, 48)
        changed = values(folder)
        changed["models"] = {**changed["models"], "text_encoder": str(tmp_path)}
        with pytest.raises(SqueezeError, match="48 numbers a token and FLUX hears 32"):
            distill_task(parse_config(changed))

    def test_t5_in_the_mllms_place_is_said(self, folder):
        changed = values(folder)
        changed["models"] = {**changed["models"], "mllm": str(folder / "models" / "flux" / "text_encoder_2")}
        with pytest.raises(SqueezeError, match="t5"):
            distill_task(parse_config(changed))


def test_resumed_it_ends_as_if_never_stopped(make, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for steps, run, resume in ((4, whole, False), (2, parts, False), (4, parts, True)):
        task = make(steps=steps, schedule="constant")
        Trainer(task, task.config, run).run(resume)
    assert same(saved(whole), saved(parts))


def test_it_is_exported_and_stage_1_begins_with_it(make, folder, uno, tmp_path):
    run, file = tmp_path / "run", tmp_path / "a.safetensors"
    task = make()
    Trainer(task, task.config, run).run()
    export(run, file)
    loaded = adapter.load(file)
    assert loaded.lora == {} and "distilled from T5" in loaded.config.trained_by
    assert (loaded.config.gate.tau_1, loaded.config.gate.late, loaded.config.guidance) == (0.0, "keep", 3.5)
    for init in (run, file):
        config = parse_config(
            tiny.config_values(folder / "models", uno, init=str(init), vae_references=False, drops={"context": 0.1})
        )
        begun = squeeze_task(config)
        assert equal(begun.module.aggregator, task.module.aggregator)
        lora = {n: p for n, p in begun.module.named_parameters() if p.requires_grad and "lora" in n}
        assert lora and all(float(p.detach().abs().max()) == 0 for n, p in lora.items() if "lora_B" in n)


def test_pictures_are_made_without_a_lora(make, tmp_path):
    task = make(sample_every=4, sampling={"prompts": ["a dog"], "steps": 2})
    Trainer(task, task.config, tmp_path / "run").run()
    assert Image.open(next((tmp_path / "run" / "samples").rglob("*.png"))).size == (64, 64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sharding": "fsdp2"}, "stages 1 and 2"),
        ({"compile": True, "distillation": {"attention": 1.0}}, "one of the two"),
        ({"distilation": {}}, 'Did you mean "distillation"'),
        ({"data": []}, "data"),
        ({"data": [{"kind": "uno", "folder": "x"}]}, "data.0"),
        ({"dla": {"variant": "convolution"}}, "convolution"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(folder, changes, said):
    with pytest.raises(SqueezeError, match=said):
        parse_config(values(folder, **changes))


@pytest.mark.parametrize("missing", ["text_encoder", "clip"])
def test_one_file_of_flux_needs_the_teachers_encoders(folder, missing):
    models = {"flux": "flux.safetensors", "vae": "v", "mllm": "m", "text_encoder": "t", "clip": "c"}
    with pytest.raises(SqueezeError, match=missing):
        parse_config(values(folder, models={**models, missing: None}))


def test_a_teachers_clip_that_is_not_there_is_said(folder, tmp_path):
    changed = values(folder)
    changed["models"] = {**changed["models"], "clip": str(tmp_path)}
    with pytest.raises(SqueezeError, match="CLIP-L"):
        distill_task(parse_config(changed))


def test_words_are_asked_for_before_models_are_loaded(folder, tmp_path):
    changed = values(folder, data=[{"kind": "texts", "file": str(tmp_path / "none.txt")}])
    changed["models"] = {**changed["models"], "mllm": "nothing"}
    with pytest.raises(SqueezeError, match=r"none\.txt"):
        distill_task(parse_config(changed))


def test_the_mllm_writes_the_words_that_are_missing_once(folder, tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        RED.save(pictures / f"{name}.png")
    written = []
    monkeypatch.setattr(
        "squeeze_core.mllm.write_prompt.write_prompt",
        lambda *given, **more: written.append(given) or "a red square",
    )
    data = [{"kind": "described", "folder": str(pictures), "describe": True}]
    for _ in range(2):
        task = distill_task(parse_config(values(folder, data=data)))
    assert len(written) == 2 and task.walk.example(0).words == "a red square"
    (pictures / "captions.jsonl").unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SqueezeError, match=r"2 pictures .* have no words yet"):
        distill_task(parse_config(values(folder, data=data)))


def test_a_prompt_that_cannot_be_used_is_skipped(make, folder):
    task = make()
    told = Told("<img> toy", "a toy", "bad")
    task.walk.sources = (replace_first(task.walk.sources[0], told), *task.walk.sources[1:])
    seen = [task.walk.example(index).prompt for index in range(16)]
    assert "<img> toy" not in seen and len(task.walk.broken) == 1


def replace_first(source, told):
    class Replaced:
        def __len__(self):
            return len(source)

        def __getitem__(self, number):
            return replace(told) if number == 0 else source[number]

        def identity(self):
            return "x"

    return Replaced()
