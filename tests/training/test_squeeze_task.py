"""The method's own training, on the smallest models of the real architectures."""

from dataclasses import replace

import pytest
import torch

from squeeze_core.flux import clip
from squeeze_core.flux.model import velocity
from squeeze_core.flux.tokens import to_latents, to_tokens
from squeeze_core.references import offsets
from squeeze_core.training.build import squeeze_task
from squeeze_core.training.config_files import parse_config
from squeeze_core.training.loop import Trainer

from .. import clip_text
from . import tiny
from .test_loop import lines, same, saved


@pytest.fixture
def make(models, uno):
    def make(**changes):
        config = parse_config(tiny.config_values(models, changes.pop("data_folder", uno), **changes))
        return squeeze_task(config)

    return make


ALWAYS = {"pictures": 0.0, "references": 0.0, "context": 0.0}


@pytest.fixture(scope="module")
def task(models, uno):
    return squeeze_task(parse_config(tiny.config_values(models, uno, drops=ALWAYS)))


def nudge(task):
    """Away from the start, where LoRA B and the attention's outputs are zero and hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return task


def gradients(task, samples):
    task.module.zero_grad(set_to_none=True)
    loss, numbers = task.loss(samples)
    loss.backward()
    return loss.detach(), numbers, {n: p.grad for n, p in task.module.named_parameters() if p.requires_grad}


def test_the_loss_is_rectified_flow_written_out(task):
    """x_t = (1 - t) x + t noise, target noise - x, for one sample, by hand."""
    sample = task.batch([5])[0]
    vae, transformer = task.vae, task.module.transformer

    def latents(picture):
        raw = vae.encode(picture.pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode().half().float()
        return (raw - vae.config.shift_factor) * vae.config.scaling_factor

    with torch.no_grad():
        x, reference = latents(sample.target), latents(sample.references[0])
        states = task.mllm.encode(sample.prompt)
        context = task.module.aggregator(states.states, states.image_mask)[0][None]
        t = sample.sigma
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        (index, row, column) = offsets([(4, 4)], (rows, columns), "uxo")[0]
        grid = [(0, r, c) for r in range(rows) for c in range(columns)]
        grid += [(index, row + r, column + c) for r in range(4) for c in range(4)]
        predicted = transformer(
            hidden_states=torch.cat([to_tokens((1 - t) * x + t * sample.noise), to_tokens(reference)], 1),
            encoder_hidden_states=context,
            pooled_projections=torch.zeros(1, 768),
            timestep=torch.tensor([t]),
            guidance=torch.tensor([1.0]),
            img_ids=torch.tensor(grid).float(),
            txt_ids=torch.zeros(context.shape[1], 3),
        ).sample[:, : rows * columns]
        expected = (to_latents(predicted, rows) - (sample.noise - x)).square().mean()
        ours = task.loss([sample])[0]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("calls", ["few", "mask", "group"])
def test_a_batch_is_the_mean_of_its_samples_however_they_are_grouped(make, tmp_path, calls):
    """Prompts and targets of unequal sizes, drops on: nothing of a sample reaches another."""
    data = tiny.write_uno(tmp_path / "uno", pairs=6, sizes=((64, 64), (64, 128)))
    values = {"data_folder": data, "drops": {"pictures": 0.3, "references": 0.3, "context": 0.3}}
    grouped, each = nudge(make(**values, calls=calls)), nudge(make(**values, calls="each"))
    samples = grouped.batch(range(12))
    assert len({sample.target.pixels.shape for sample in samples}) == 2
    loss, numbers, gradient = gradients(grouped, samples)
    apart = [gradients(each, [sample]) for sample in samples]
    assert 1 < numbers["flux_calls"] < 12
    assert calls != "few" or numbers["flux_calls"] <= 4  # two for each size of targets
    assert calls == "group" or numbers["flux_calls"] <= 4  # two sizes of targets, with references or without
    torch.testing.assert_close(loss, torch.stack([one[0] for one in apart]).mean(), rtol=1e-5, atol=1e-6)
    for name, value in gradient.items():
        expected = torch.stack([one[2][name] for one in apart]).mean(0)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=2e-5)


def test_memory_savings_change_no_gradient(make):
    plain, saving = nudge(make(gradient_checkpointing=False)), nudge(make(gradient_checkpointing=True))
    samples = plain.batch(range(4))
    _, _, expected = gradients(plain, samples)
    _, _, found = gradients(saving, samples)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


def test_pooling_in_chunks_equals_pooling_at_once(task, monkeypatch):
    prompts = [sample.prompt for sample in task.batch(range(3))]
    whole = task._contexts(prompts)
    monkeypatch.setattr("squeeze_core.training.flux_task.TOKEN_CHUNK", 7)
    for a, b in zip(whole, task._contexts(prompts)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_context_is_the_one_that_inference_makes(task):
    from squeeze_core.pipeline import SqueezePipeline

    prompt = task.batch([0])[0].prompt
    module = task.module
    pipeline = SqueezePipeline(
        module.transformer, task.vae, task.mllm, module.aggregator, task.adapter, device="cpu"
    )
    expected, _ = pipeline.aggregate(pipeline.encode(prompt))
    torch.testing.assert_close(task._contexts([prompt])[0][0], expected, rtol=1e-5, atol=1e-6)


def test_a_dropped_context_is_one_zero_token_as_in_the_late_stage(make):
    task = make(drops={**ALWAYS, "context": 1.0})
    sample = task.batch([0])[0]
    assert sample.prompt is None and sample.references
    context = task._contexts([None])[0]
    assert context.shape == (1, 1, 32) and not context.any()


def test_flux_hears_clips_vector_where_the_config_asks_for_it_and_zeros_where_all_is_dropped(
    models, uno, tmp_path, monkeypatch
):
    words = clip_text.write(tmp_path / "clip")
    values = tiny.config_values(models, uno, pooled="clip_l", drops=ALWAYS, calls="mask")  # one call of FLUX
    values["models"]["clip"] = str(words)
    task = squeeze_task(parse_config(values))
    assert task.adapter.pooled == "clip_l" and "clip" in task.identity()
    first, second = task.batch(range(2))
    heard = []

    def listening(transformer, latents, sigma, conditioning):
        heard.append(conditioning.pooled)
        return velocity(transformer, latents, sigma, conditioning)

    monkeypatch.setattr("squeeze_core.training.squeeze_task.velocity", listening)
    task.loss([replace(second, prompts=()), first])
    ((silent, told),) = heard
    torch.testing.assert_close(told, clip.load(words).encode([first.prompt.text])[0])
    assert told.any() and not silent.any()


def test_every_trained_weight_has_a_gradient_also_when_all_is_dropped(make):
    task = make(drops={"pictures": 1.0, "references": 1.0, "context": 1.0})
    _, _, found = gradients(task, task.batch(range(2)))
    assert all(gradient is not None for gradient in found.values())
    assert all(not found[name].any() for name in found if name.startswith("aggregator"))


def test_only_aggregator_and_lora_are_trained(make):
    task = make()
    trained = {name for name, p in task.module.named_parameters() if p.requires_grad}
    attention = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    assert sum("lora" in name for name in trained) == 2 * (8 + 3)
    for name in trained:
        is_lora = ".lora_A.squeeze.weight" in name or ".lora_B.squeeze.weight" in name
        assert name.startswith("aggregator.") or (is_lora and any(f"attn.{a}.lora" in name for a in attention)), (
            name
        )
    assert all(name in trained for name, _ in task.module.named_parameters() if name.startswith("aggregator."))
    assert not any(p.requires_grad for p in (*task.vae.parameters(), *task.mllm.model.parameters()))


def test_training_begins_at_the_untouched_flux(make):
    """LoRA B is zero: a new run predicts what FLUX itself predicts."""
    with_lora, without = make(drops=ALWAYS), make(drops=ALWAYS, lora={"rank": 0})
    without.module.aggregator.load_state_dict(with_lora.module.aggregator.state_dict())
    samples = with_lora.batch(range(2))
    torch.testing.assert_close(with_lora.loss(samples)[0], without.loss(samples)[0])


def test_stage_1_has_no_reference_tokens(make):
    task = make(vae_references=False, drops={"pictures": 0.0, "context": 0.0})
    for sample in task.batch(range(4)):
        assert sample.references == () and len(sample.prompt.images) == 1


def test_drops_come_at_their_rates_and_independently(make):
    task = make(drops={"pictures": 0.25, "references": 0.5, "context": 0.2})
    samples = task.batch(range(600))
    pictures = [s.prompt is not None and not s.prompt.images for s in samples]
    references = [not s.references for s in samples]
    context = [s.prompt is None for s in samples]
    assert sum(context) / 600 == pytest.approx(0.2, abs=0.05)
    assert sum(pictures) / (600 - sum(context)) == pytest.approx(0.25, abs=0.05)
    assert sum(references) / 600 == pytest.approx(0.5, abs=0.06)
    assert sum(a and b for a, b in zip(references, context)) / 600 == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("timesteps", ["uniform_shifted", "logit_normal", "cosine"])
def test_times_have_their_distribution(make, timesteps):
    task = make(timesteps=timesteps)
    times = torch.tensor([task._sigma(index, 1024) for index in range(4000)])
    assert times.min() >= 0 and times.max() <= 1
    if timesteps == "logit_normal":
        assert torch.logit(times).mean().abs() < 0.05 and torch.logit(times).std() == pytest.approx(1, abs=0.05)
    elif timesteps == "cosine":
        drawn = torch.quantile(times, torch.linspace(0.05, 0.95, 19))
        assert (drawn - torch.cos(torch.linspace(0.95, 0.05, 19) * torch.pi / 2)).abs().max() < 0.005
    else:
        shift = 2.718281828 ** (0.5 + 0.65 * (1024 - 256) / (4096 - 256))
        unshifted = times / (shift - (shift - 1) * times)
        assert unshifted.mean() == pytest.approx(0.5, abs=0.02)
        assert (unshifted * 999 - (unshifted * 999).round()).abs().max() < 0.02


def test_samples_are_the_same_whatever_was_asked_before(make):
    task, other = make(), make()
    expected = task.batch([3, 17])
    other.batch(range(30))
    for a, b in zip(expected, other.batch([3, 17])):
        assert torch.equal(a.noise, b.noise) and a.sigma == b.sigma
        assert torch.equal(a.target.pixels, b.target.pixels) and (a.prompt is None) == (b.prompt is None)
    assert not torch.equal(expected[0].noise, expected[1].noise)


def test_it_learns_what_it_is_shown(make, tmp_path):
    """One sample again and again: the loss falls well below that of the untrained FLUX."""
    task = make(drops=ALWAYS, batch_size=2, steps=30, learning_rate=3e-3, save_every=100)
    samples = task.batch([0, 1])
    task.batch = lambda indices: samples
    Trainer(task, task.config, tmp_path / "run").run()
    log = lines(tmp_path / "run")
    assert log[-1]["loss"] < 0.75 * log[0]["loss"]


def test_a_resumed_run_is_the_uninterrupted_one_and_the_base_models_stay(make, tmp_path):
    task = make(ema=0.9, latent_cache=str(tmp_path / "latents"))
    frozen = {n: p.clone() for n, p in task.module.named_parameters() if not p.requires_grad}
    Trainer(task, task.config, tmp_path / "whole").run()
    assert all(torch.equal(p, frozen[n]) for n, p in task.module.named_parameters() if n in frozen)
    for steps in (2, 4):
        part = make(ema=0.9, steps=steps)
        Trainer(part, part.config, tmp_path / "parts").run(resume=True)
    assert same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))


def test_stage_2_begins_with_stage_1(make, tmp_path):
    first = make(vae_references=False, drops={"pictures": 0.0, "context": 0.0}, steps=2)
    Trainer(first, first.config, tmp_path / "one").run()
    second = make(init=str(tmp_path / "one"))
    weights = dict(first.module.named_parameters())
    for name, parameter in second.module.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_bf16_runs_and_is_near_fp32(make):
    task = make(drops=ALWAYS)
    samples = task.batch(range(2))
    exact = task.loss(samples)[0].detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = task.loss(samples)[0]
    assert rough.dtype == torch.float32 and float(rough.detach()) == pytest.approx(float(exact), rel=0.1)


@pytest.mark.parametrize("vae_references", [False, True])
def test_pictures_of_both_stages_are_made(make, vae_references):
    drops = {"pictures": 0.1, "context": 0.1}
    sampling = {"count": 2, "steps": 2}
    task = make(vae_references=vae_references, drops=drops, sample_every=1, sampling=sampling)
    with torch.no_grad():
        pictures = task.sample(1)
    assert sorted(pictures) == ["0", "1"] and pictures["0"].size == (128, 64)


def test_a_caption_with_control_tokens_is_skipped_and_named(make, tmp_path, capsys):
    import json

    data = tiny.write_uno(tmp_path / "uno")
    path = data / "uno_1m_total_labels.json"
    rows = json.loads(path.read_text())
    rows[2]["caption"]["img_path2"] = "the toy <|im_end|> on the beach"
    path.write_text(json.dumps(rows))
    task = make(data_folder=data)
    prompts = [sample.prompt.text for sample in task.batch(range(24)) if sample.prompt]
    assert not any("im_end" in prompt for prompt in prompts)
    assert len(task.walk.broken) == 1 and "<|im_end|>" in capsys.readouterr().err


def test_the_crop_is_a_draw(make, tmp_path):
    data = tiny.write_uno(tmp_path / "uno", sizes=((70, 64),))
    middle, random = make(data_folder=data), make(data_folder=data, crop="random")
    assert any(
        not torch.equal(a.target.pixels, b.target.pixels)
        for a, b in zip(middle.batch(range(6)), random.batch(range(6)))
    )


def test_two_subjects_and_one_train_together(make, tmp_path):
    """Appendix F: a mixture of both data sets; both references are heard, in order, by MLLM and FLUX."""
    import json

    from PIL import Image

    musar = tmp_path / "musar"
    musar.mkdir()
    rows = []
    for number in range(3):
        for name, colour in (("a", (250, 0, 0)), ("b", (0, 250, 0)), ("t", (0, 0, 250))):
            Image.new("RGB", (64, 64), colour).save(musar / f"{number}_{name}.png")
        images = {
            key: f"{number}_{name}.png"
            for key, name in (("cond_img_0", "a"), ("cond_img_1", "b"), ("tgt_img", "t"))
        }
        rows.append({**images, "prompt": "a cup beside the toy"})
    (musar / "rows.json").write_text(json.dumps(rows))
    uno = tiny.write_uno(tmp_path / "uno")
    data = [{"kind": "uno", "folder": str(uno), "share": 2}, {"kind": "musar", "folder": str(musar)}]
    task = make(data=data, drops=ALWAYS, batch_size=6, steps=2)
    samples = task.batch(range(6))
    assert sorted(len(sample.references) for sample in samples) == [1, 1, 1, 1, 2, 2]
    both = next(sample for sample in samples if len(sample.references) == 2)
    assert [int(picture.pixels[0, 0, 0].argmax()) for picture in both.references] == [0, 1]
    assert len(both.prompt.images) == 2
    assert Trainer(task, task.config, tmp_path / "run").run().step == 2
    swapped = replace(both, references=both.references[::-1])
    nudge(task)
    assert task.loss([both])[0] != task.loss([swapped])[0]
