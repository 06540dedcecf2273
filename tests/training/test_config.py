from pathlib import Path

import pytest
import yaml

from squeeze_core.errors import SqueezeError
from squeeze_core.training.config_files import load_config
from squeeze_core.training.settings import LoopSettings

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(
    [*CONFIGS.glob("squeeze_*.yaml"), *CONFIGS.glob("multi_*.yaml"), *CONFIGS.glob("ablations/*.yaml")]
)
ABLATIONS = sorted((CONFIGS / "ablations").glob("*.yaml"))


def test_stage_1_has_the_papers_numbers():
    config = load_config(CONFIGS / "squeeze_stage1.yaml")
    assert (config.steps, config.batch_size, config.learning_rate) == (25_000, 8 * 16, 1e-5)
    assert (config.schedule, config.warmup, config.ema, config.precision) == ("constant", 0, None, "bf16")
    assert (config.lora.rank, config.lora.alpha, config.dla.variant) == (512, None, "dual")
    assert not config.vae_references and config.init is None
    assert (config.drops.pictures, config.drops.context) == (0.1, 0.1)
    assert (config.gate.tau_1, config.gate.tau_2, config.inference_guidance) == (0.95, 0.85, 2.5)
    assert config.data[0].kind == "uno" and config.data[0].min_score == 4.0


def test_stage_2_has_the_papers_numbers_and_begins_with_stage_1():
    config = load_config(CONFIGS / "squeeze_stage2.yaml")
    assert (config.steps, config.batch_size, config.learning_rate) == (10_000, 8 * 16, 1e-5)
    assert config.vae_references and config.init == "runs/stage1"
    assert (config.drops.pictures, config.drops.references, config.drops.context) == (0.25, 0.25, 0.2)


def test_two_subjects_first_musar_then_both():
    first, second = load_config(CONFIGS / "multi_subject.yaml"), load_config(CONFIGS / "multi_subject_stage2.yaml")
    assert [s.kind for s in first.data] == ["musar"] and not first.vae_references
    assert [s.kind for s in second.data] == ["uno", "musar"] and second.vae_references


def test_there_is_a_config_for_each_row_of_the_ablations():
    rows = {"table6": 12, "tableB": 15, "tableD": 3, "table7": 1}
    assert {table: sum(p.name.startswith(table) for p in ABLATIONS) for table in rows} == rows
    assert sum(rows.values()) == len(ABLATIONS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_reads_on_1_2_8_and_16_gpus(path):
    config = load_config(path)
    for processes in (1, 2, 8, 16):
        micro = min(config.micro_batch, config.batch_size // processes)
        assert config.model_copy(update={"micro_batch": micro}).batch_layout(processes).accumulation >= 1


@pytest.mark.parametrize("path", [p for p in ABLATIONS if "table7" not in p.name], ids=lambda path: path.stem)
def test_an_ablation_changes_one_thing_in_both_stages(path):
    changed = set(yaml.safe_load(path.read_text())) - {"extends"}
    assert changed in ({"dla"}, {"models"})
    for stage, changes in (("squeeze_stage1", []), ("squeeze_stage2", [f"extends={path}"])):
        plain = load_config(CONFIGS / f"{stage}.yaml").model_dump()
        config = load_config(path if not changes else CONFIGS / f"{stage}.yaml", changes).model_dump()
        assert {key for key in plain if plain[key] != config[key]} == changed


def test_changes_reach_any_depth():
    changes = ["steps=7", "dla.lap.blocks=2", "data.0.folder=/data", "latent_cache=null", "sampling.prompts=[a, b]"]
    config = load_config(CONFIGS / "squeeze_stage1.yaml", changes)
    assert (config.steps, config.dla.lap.blocks, config.data[0].folder) == (7, 2, "/data")
    assert config.latent_cache is None and config.sampling.prompts == ("a", "b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stepz=3", r'unknown key "stepz".*"steps"'),
        ("lora.rnak=3", r'unknown key "lora\.rnak".*"lora\.rank"'),
        ("gate.tau1=0.5", r'unknown key "gate\.tau1".*"gate\.tau_1"'),
        ("gate.tau_1=0.5", r"tau_1 \(0\.5\) is below tau_2"),
        ("dla.lap.block=2", r'"dla\.lap\.blocks"'),
        ("data.0.min_scor=3", r'"data\.0\.min_score"'),
        ("data.3.folder=x", "list of 1"),
        ("steps=many", r'"steps" is \'many\''),
        ("learning_rate=-1", "greater than 0"),
        ("drops.references=0.5", "nothing to drop"),
        ("sharding=fsdp2", 'calls "each"'),
        ("models.flux=flux.safetensors", r"models\.vae"),
        ("pooled=clip", "'clip_l'"),
        ("dla.text_layers=9-0", "backwards"),
        ("steps", "key=value"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    with pytest.raises(SqueezeError, match=said):
        load_config(CONFIGS / "squeeze_stage1.yaml", [change])


def test_one_file_of_flux_holds_no_clip():
    changes = ["models.flux=flux.safetensors", "models.vae=ae.safetensors"]
    with pytest.raises(SqueezeError, match=r"models\.clip"):
        load_config(CONFIGS / "squeeze_stage1.yaml", [*changes, "pooled=clip_l"])


def test_files_that_do_not_read_are_named(tmp_path):
    with pytest.raises(SqueezeError, match="There is no config"):
        load_config(tmp_path / "none.yaml")
    for text, said in (("a: [", "as YAML"), ("- a", "mapping"), ("extends: x.yaml", "extends itself")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(SqueezeError, match=said):
            load_config(tmp_path / "x.yaml")
    (tmp_path / "y.yaml").write_text(f"extends: {CONFIGS / 'squeeze_stage1.yaml'}\nsteps: 3")
    assert load_config(tmp_path / "y.yaml").steps == 3
    (tmp_path / "z.yaml").write_text("steps: 3")
    with pytest.raises(SqueezeError, match='lacks "batch_size"'):
        load_config(tmp_path / "z.yaml")


def test_a_variant_that_is_not_token_by_token_is_not_trained():
    with pytest.raises(SqueezeError, match="trained are dual"):
        load_config(CONFIGS / "squeeze_stage1.yaml", ["dla.variant=convolution"])


def test_a_checkpoint_of_an_earlier_version_had_the_defaults_of_what_it_does_not_name():
    settings = LoopSettings(steps=8, batch_size=4, clip=2.0)
    saved = settings.identity()
    del saved["ema"]
    assert settings.completed(saved) == settings.identity()
    changed = settings.model_copy(update={"ema": 0.9})
    assert changed.completed(saved) != changed.identity()


def test_what_a_run_may_change_is_named_and_all_else_is_its_identity():
    free = {"micro_batch", "sharding", "device", "deterministic", "attention_kernels", "save_every", "keep"}
    free |= {"sample_every", "workers", "tensorboard"}
    assert LoopSettings.model_fields.keys() - LoopSettings(steps=1, batch_size=1).identity().keys() == free | {
        "steps"
    }
    assert "steps" in LoopSettings(steps=1, batch_size=1, schedule="cosine").identity()
