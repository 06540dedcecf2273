"""`squeeze doctor`: what is there is found, what is missing is named with its place, what fits is said."""

import json
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from squeeze_core import adapter
from squeeze_core.cli import app
from squeeze_core.commands.doctor import examine
from squeeze_core.diagnosis import comfyui, machine
from squeeze_core.diagnosis.models import inventory, main_dtype
from squeeze_core.dla import Aggregator, DLAConfig
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.spec import DiTSpec
from squeeze_core.lap import LAPConfig
from squeeze_core.mllm.backbone import MLLMIdentity


@pytest.fixture
def comfy(tmp_path):
    """A folder that looks like ComfyUI, without any model."""
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").touch()
    (folder / "folder_paths.py").touch()
    (folder / "comfyui_version.py").write_text('# comment\n__version__ = "0.33.0"\n')
    return folder


def weights(path, dtype=torch.bfloat16):
    """A safetensors file: most of it in `dtype`, a little in float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(8, 8).to(dtype), "norm": torch.zeros(4)}, path)


def names(folder, wanted: str) -> list[str]:
    found = {w.name: files for w, files in inventory(comfyui.read(folder).folders)}
    return [file.name for file in found[wanted]]


@pytest.mark.parametrize(
    "file, wanted",
    [
        ("diffusion_models/flux1-dev.safetensors", "FLUX.1-dev"),
        ("unet/FLUX/flux1-dev-fp8.safetensors", "FLUX.1-dev"),
        ("unet/flux1-dev-Q8_0.gguf", "FLUX.1-dev"),
        ("diffusion_models/flux1-krea-dev.sft", "FLUX.1-dev"),
        ("diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors", "FLUX.1-Kontext-dev"),
        ("diffusion_models/flux.2-klein.safetensors", "FLUX.2 klein"),
        ("vae/ae.safetensors", "FLUX.1 VAE"),
        ("vae/flux_vae.safetensors", "FLUX.1 VAE"),
        ("loras/UNO/dit_lora.safetensors", "UNO LoRA"),
        ("loras/uno_flux.safetensors", "UNO LoRA"),
        ("loras/uso-flux1-dit-lora-v1.safetensors", "USO LoRA"),
        ("text_encoders/t5xxl_fp8_e4m3fn.safetensors", "T5-XXL"),
        ("clip/clip_l.safetensors", "CLIP-L"),
    ],
)
def test_each_model_is_found_where_comfyui_keeps_it_and_is_taken_for_no_other(comfy, file, wanted):
    weights(comfy / "models" / file)
    found = [w.name for w, files in inventory(comfyui.read(comfy).folders) if files]
    assert found == [wanted]


@pytest.mark.parametrize(
    "file",
    [
        "diffusion_models/flux1-fill-dev.safetensors",
        "diffusion_models/flux2-dev.safetensors",
        "diffusion_models/sdxl.safetensors",
        "diffusion_models/flux1-dev.txt",
        "vae/vae-ft-mse.safetensors",
        "loras/unofficial.safetensors",
        "loras/juno.safetensors",
        "text_encoders/clip_g.safetensors",
    ],
)
def test_what_only_looks_alike_is_not_taken_for_it(comfy, file):
    weights(comfy / "models" / file)
    assert not any(files for _, files in inventory(comfyui.read(comfy).folders))


@pytest.mark.parametrize(
    "dtype, said", [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float8_e4m3fn, "F8_E4M3")]
)
def test_the_dtype_of_most_parameters_is_told_from_the_header_alone(tmp_path, dtype, said):
    weights(tmp_path / "x.safetensors", dtype)
    assert main_dtype(tmp_path / "x.safetensors") == said


def test_ggufs_are_told_by_name_and_broken_files_are_listed_as_unusable(comfy):
    models = comfy / "models" / "diffusion_models"
    weights(models / "flux1-dev-Q4_K_S.gguf")
    (models / "flux1-dev.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    found = {w.name: files for w, files in inventory(comfyui.read(comfy).folders)}["FLUX.1-dev"]
    assert found[0].usable and found[0].detail == "Q4_K_S"
    assert not found[1].usable and "unreadable" in found[1].detail


def test_extra_model_paths_are_read_by_comfyuis_rules(comfy, tmp_path):
    weights(tmp_path / "elsewhere" / "nets" / "flux1-dev.safetensors")
    weights(comfy / "shared" / "ae.safetensors")
    (comfy / comfyui.EXTRA_PATHS).write_text(
        f"one:\n  base_path: {tmp_path / 'elsewhere'}\n  is_default: true\n  unet: |\n    nets\n    more\n"
        "two:\n  vae: shared\nthree:\n"
    )
    assert names(comfy, "FLUX.1-dev") == ["flux1-dev.safetensors"]
    assert names(comfy, "FLUX.1 VAE") == ["ae.safetensors"]
    assert comfyui.read(comfy).notes == []


@pytest.mark.parametrize("text", ["{", "just words", "a: [1]", "- x", "a: {vae: 3}"])
def test_odd_extra_model_paths_are_noted_and_nothing_breaks(comfy, text):
    (comfy / comfyui.EXTRA_PATHS).write_text(text)
    weights(comfy / "models" / "vae" / "ae.safetensors")
    assert names(comfy, "FLUX.1 VAE") == ["ae.safetensors"]


def test_mllms_are_listed_with_their_shape_or_with_why_they_cannot_be_used(comfy):
    for name, model_type in (("InternVL3-1B-hf", "internvl"), ("InternVL3-8B", "internvl_chat")):
        folder = comfy / "models" / "LLM" / name
        weights(folder / "model.safetensors")
        config = {"model_type": model_type, "text_config": {"hidden_size": 896, "num_hidden_layers": 24}}
        (folder / "config.json").write_text(json.dumps(config))
    usable, original = {w.name: files for w, files in inventory(comfyui.read(comfy).folders)}["MLLM"]
    assert usable.usable and "24 layers x 896" in usable.detail
    assert not original.usable and "InternVL3-8B-hf" in original.detail


def test_adapters_are_listed_with_what_they_are_for_and_broken_ones_with_why(comfy):
    config = adapter.AdapterConfig(
        mllm=MLLMIdentity(model_type="internvl", hidden_size=8, layers=2, final_norm_hash="0" * 16, name="an MLLM"),
        dit=DiTSpec(width=8, double_blocks=1, single_blocks=1, context=4, name="a DiT"),
        dla=DLAConfig(hidden=8, layers=3, context=4, lap=LAPConfig(heads=2)),
    )
    folder = comfy / "models" / "squeeze"
    adapter.save(folder / "mine.safetensors", config, Aggregator(config.dla).state_dict(), {})
    weights(folder / "other.safetensors")
    good, bad = {w.name: files for w, files in inventory(comfyui.read(comfy).folders)}["Squeeze adapter"]
    assert good.usable and "for an MLLM and a DiT of width 8" in good.detail and "untrained" in good.detail
    assert not bad.usable and "no Squeeze adapter" in bad.detail


def test_everything_wanted_says_where_it_goes_and_where_to_get_it():
    for wanted, files in inventory({}):
        assert files == []
        assert wanted.goes_to.startswith("models/") and wanted.licence and wanted.use
        if wanted.get.startswith("hf download"):
            assert f"--local-dir {wanted.goes_to}" in wanted.get


def test_comfyui_is_found_by_argument_then_environment(comfy, tmp_path, monkeypatch):
    assert comfyui.find(comfy, {}).version == "0.33.0"
    assert comfyui.find(None, {"COMFYUI_PATH": str(comfy)}).folder == comfy
    for given, environment in ((tmp_path, {}), (None, {"COMFYUI_PATH": str(tmp_path)})):
        with pytest.raises(SqueezeError, match=r"main\.py"):
            comfyui.find(given, environment)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "nobody"))
    assert comfyui.find(None, {}) is None
    (tmp_path / "nobody" / "comfy").mkdir(parents=True)
    comfy.rename(tmp_path / "nobody" / "comfy" / "ComfyUI")
    assert comfyui.find(None, {}).version == "0.33.0"


@pytest.mark.parametrize(
    "installed, old", [("4.51.3", True), ("4.52.0", False), ("5.23.0", False), ("4.52.0.dev0", False), ("3", True)]
)
def test_transformers_below_4_52_is_a_problem_and_the_sentence_names_both(installed, old):
    def lookup(name):
        return installed if name == "transformers" else version(name)

    (row,) = [row for row in machine.versions(lookup) if row.name == "transformers"]
    assert bool(row.problem) == old and row.needed
    if old:
        assert installed in row.problem and "4.52" in row.problem


def test_a_missing_needed_package_breaks_health_and_an_optional_one_does_not(comfy, monkeypatch):
    def without(missing):
        def lookup(name):
            if name == missing:
                raise PackageNotFoundError(name)
            return version(name)

        return lookup

    original = machine.versions
    for missing, healthy in (("diffusers", False), ("peft", True)):
        monkeypatch.setattr(machine, "versions", lambda missing=missing: original(without(missing)))
        diagnosis = examine(comfy)
        assert diagnosis.healthy == healthy
        assert any(row.name == missing and "pip install" in row.problem for row in diagnosis.versions)
        result = CliRunner().invoke(app(), ["doctor", "--comfyui", str(comfy)])
        assert result.exit_code == (0 if healthy else 1)


GB = 10**9


@pytest.mark.parametrize(
    "ram, vram, expected",
    [
        (64, 24, {"InternVL3-8B bf16": "whole", "FLUX.1-dev bf16": "paged", "FLUX.1-dev fp8": "whole"}),
        (16, 12, {"InternVL3-8B bf16": "no", "InternVL3-8B fp8": "whole", "FLUX.1-dev bf16": "no"}),
        (32, 8, {"InternVL3-8B bf16": "paged", "FLUX.1-dev fp8": "paged", "InternVL3-2B bf16": "whole"}),
        (32, None, {"InternVL3-8B bf16": "whole", "InternVL3-14B bf16": "no"}),
        (None, 24, {"FLUX.1-dev bf16": "paged"}),
    ],
)
def test_what_fits_is_judged_by_both_memories(ram, vram, expected):
    memory = machine.Memory(ram and ram * GB, vram and vram * GB, "a GPU" if vram else "")
    fits = {f"{row.model} {row.dtype}": row for row in machine.what_fits(memory)}
    assert {name: fits[name].fit for name in expected} == expected
    assert all(f"{row.bytes / GB:.1f} GB" in row.sentence for row in fits.values())


def test_sizes_are_those_of_the_published_models():
    sizes = {f"{row.model} {row.dtype}": row.bytes / GB for row in machine.what_fits(machine.Memory(None, None))}
    assert sizes["FLUX.1-dev bf16"] == pytest.approx(23.8) and sizes["InternVL3-8B bf16"] == pytest.approx(14.8)


def test_the_command_prints_json_that_holds_everything(comfy):
    weights(comfy / "models" / "vae" / "ae.safetensors")
    result = CliRunner().invoke(app(), ["doctor", "--comfyui", str(comfy), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["healthy"] and told["comfyui"]["version"] == "0.33.0"
    vae = next(model for model in told["models"] if model["name"] == "FLUX.1 VAE")
    assert vae["found"][0]["name"] == "ae.safetensors" and vae["goes_to"] == "models/vae"


def test_the_command_names_the_place_of_what_is_missing_and_only_of_that(comfy):
    weights(comfy / "models" / "vae" / "ae.safetensors")
    text = CliRunner().invoke(app(), ["doctor", "--comfyui", str(comfy)]).stdout
    missing = text.partition("Missing")[2]
    assert "hf download OpenGVLab/InternVL3-8B-hf --local-dir models/LLM/InternVL3-8B-hf" in missing
    assert "FLUX.1 VAE" not in missing and "ae.safetensors (" in text


def test_looking_changes_nothing(comfy):
    weights(comfy / "models" / "vae" / "ae.safetensors")
    before = sorted((str(p), p.stat().st_mtime_ns) for p in comfy.rglob("*"))
    examine(comfy)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in comfy.rglob("*")) == before
