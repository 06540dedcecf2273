"""Folder -> model: layouts, dtypes, and what is said when a folder is not as it should be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import squeeze_core.mllm
from squeeze_core.errors import SqueezeError
from squeeze_core.mllm import Prompt, load
from squeeze_core.mllm.fp8 import CastLinear

from . import checkpoints
from .conftest import FAMILIES

PROMPT = Prompt("the red hat of picture 1")


def states(folder, *args):
    return load(folder, *args).encode(PROMPT).states


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_old_and_new_key_layouts_and_shards_give_the_same_states(tmp_path, family, pictures):
    make = FAMILIES[family]
    prompt = Prompt("a hat", tuple(pictures))
    folders = {
        "old": make(tmp_path / "old"),
        "new": make(tmp_path / "new", old_keys=False),
        "sharded": make(tmp_path / "sharded", shards=3),
    }
    keys = load_file(folders["old"] / "model.safetensors").keys()
    assert keys != load_file(folders["new"] / "model.safetensors").keys()
    old, new, sharded = (load(folders[name]).encode(prompt) for name in ("old", "new", "sharded"))
    assert torch.equal(old.states, new.states)
    assert torch.equal(old.states, sharded.states)
    assert old.model_id == new.model_id == sharded.model_id


@pytest.mark.parametrize(
    "variant",
    [
        {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False},
        {"norm_type": "layer_norm", "attention_bias": True},
    ],
)
def test_both_vision_towers_of_internvl_load(tmp_path, variant, pictures):
    import transformers

    folder = checkpoints.internvl(tmp_path / "model", **variant)
    backbone = load(folder)
    own = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = backbone.inputs(Prompt("a hat", (pictures[0],)), "cpu")
    with torch.no_grad():
        expected = own.model(**inputs).last_hidden_state[0]
    assert torch.equal(backbone.encode(Prompt("a hat", (pictures[0],))).states[-1], expected)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_tied_output_layer_shares_the_embedding(tmp_path, family):
    backbone = load(FAMILIES[family](tmp_path / "model", tied=True))
    embedding = backbone.model.model.language_model.embed_tokens.weight
    assert backbone.model.lm_head.weight is embedding
    assert isinstance(backbone.generate(PROMPT, max_new_tokens=3), str)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_untied_output_layer_keeps_its_own_weights(tmp_path, family):
    folder = FAMILIES[family](tmp_path / "model", tied=False)
    weights = load_file(folder / "model.safetensors")
    stored = weights.get("language_model.lm_head.weight", weights.get("lm_head.weight"))
    assert torch.equal(load(folder).model.lm_head.weight, stored)


def test_default_keeps_the_files_dtype(tmp_path):
    folder = checkpoints.internvl(tmp_path / "model", dtype=torch.bfloat16)
    backbone = load(folder)
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    assert states(folder).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_every_weight_has_the_dtype_asked_for(folder, name, dtype):
    backbone = load(folder, name)
    weights = load_file(folder / "model.safetensors")
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {dtype}
    norm = next(value for key, value in weights.items() if key.endswith("model.norm.weight"))
    assert torch.equal(backbone.model.model.language_model.norm.weight, norm.to(dtype))


def test_fp8_takes_the_language_layers_linear_weights_and_nothing_else(folder, pictures):
    backbone = load(folder, "fp8_e4m3fn")
    for name, parameter in backbone.model.named_parameters():
        owner = backbone.model.get_submodule(name.rpartition(".")[0])
        eight = name.startswith("model.language_model.layers.") and name.endswith("proj.weight")
        assert parameter.dtype == (torch.float8_e4m3fn if eight else torch.float32), name
        assert isinstance(owner, CastLinear) == (".language_model.layers." in name and "proj" in name), name
    prompt = Prompt("a hat", tuple(pictures))
    exact, cast = load(folder).encode(prompt).states, backbone.encode(prompt).states
    error = (cast - exact).norm() / exact.norm()
    assert 0 < error < 0.1
    assert isinstance(backbone.generate(prompt, max_new_tokens=3), str)


def test_fp8_clamps_values_out_of_range(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    key = "language_model.model.layers.0.mlp.up_proj.weight"
    weights[key][0, :2] = torch.tensor([1e4, -1e4])
    save_file(weights, folder / "model.safetensors")
    weight = load(folder, "fp8_e4m3fn").model.model.language_model.layers[0].mlp.up_proj.weight
    assert weight[0, :2].float().tolist() == [448.0, -448.0]


def test_the_identity_does_not_depend_on_the_weight_dtype(folder, tmp_path):
    labels = {load(folder, name).identity.label for name in ("default", "fp32", "bf16", "fp16", "fp8_e4m3fn")}
    assert len(labels) == 1


def test_the_identity_tells_models_of_one_size_apart(tmp_path, internvl_folder):
    import hashlib

    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    norm = weights["language_model.model.norm.weight"]
    identity = load(internvl_folder).identity
    assert (identity.model_type, identity.hidden_size, identity.layers) == ("internvl", 32, 3)
    assert identity.final_norm_hash == hashlib.sha256(norm.numpy().tobytes()).hexdigest()[:16]
    norm[0] += 1
    save_file(weights, folder / "model.safetensors")
    assert load(folder).identity.final_norm_hash != identity.final_norm_hash


def test_the_model_is_frozen_and_in_evaluation_mode(backbone):
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)


def test_loading_uses_sdpa(backbone):
    assert backbone.config._attn_implementation == "sdpa"
    assert backbone.model.model.language_model.config._attn_implementation == "sdpa"


def message(folder, *args):
    with pytest.raises(SqueezeError) as error:
        load(folder, *args)
    return str(error.value)


def test_a_missing_folder_names_the_download_and_the_place(tmp_path):
    for name, repository in (
        ("nothing", "OpenGVLab/InternVL3-8B-hf"),
        ("InternVL3-2B-hf", "OpenGVLab/InternVL3-2B-hf"),
        ("Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),
    ):
        place = tmp_path / name
        assert f"hf download {repository} --local-dir {place}" in message(place)
    assert f'--local-dir "{tmp_path / "a b"}"' in message(tmp_path / "a b")


def test_a_folder_without_config_or_weights_says_so(tmp_path, internvl_folder):
    (tmp_path / "empty").mkdir()
    assert "no config.json" in message(tmp_path / "empty")
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    text = message(folder)
    assert "no safetensors weights" in text and "hf download" in text


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, internvl_folder, kept):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    text = message(folder)
    assert str(path) in text and ("truncated" in text or "not a complete" in text) and "hf download" in text


def test_a_git_lfs_pointer_is_recognised(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)
    assert "git-lfs pointer" in message(folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = checkpoints.internvl(tmp_path / "model", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    text = message(folder)
    assert "model-00002-of-00003.safetensors" in text and "hf download" in text


def test_an_index_cannot_point_outside_the_folder(tmp_path):
    folder = checkpoints.internvl(tmp_path / "model", shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = folder / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / shard.name)
    index["weight_map"] = {key: f"../{shard.name}" for key in index["weight_map"]}
    path.write_text(json.dumps(index))
    assert "lacks 1 of 1 weight files" in message(folder)


def test_missing_unexpected_and_misshapen_weights_are_named(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path)
    norm = weights.pop("language_model.model.norm.weight")
    save_file(weights | {"something.else": norm.clone()}, path)
    text = message(folder)
    assert "1 missing (model.language_model.norm.weight)" in text
    assert "1 unexpected (something.else)" in text
    save_file(weights | {"language_model.model.norm.weight": norm[:-1].clone()}, path)
    assert "has shape [31]; config.json wants [32]" in message(folder)


def test_stored_rotary_frequencies_are_ignored(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    extra = {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((4,), 7.0)}
    save_file(load_file(path) | extra, path)
    assert torch.equal(states(folder), states(internvl_folder))


@pytest.mark.parametrize(
    ("name", "hidden", "layers", "repository"),
    [
        ("InternVL3-14B", 0, 0, "InternVL3-14B-hf"),
        ("InternVL3_5-8B", 0, 0, "InternVL3_5-8B-HF"),
        ("my model", 1536, 28, "InternVL3-2B-hf"),
        ("unknown", 7, 7, "InternVL3-8B-hf"),
    ],
)
def test_the_original_layout_names_its_hf_repository(tmp_path, name, hidden, layers, repository):
    text = message(checkpoints.original_internvl(tmp_path / name, hidden=hidden, layers=layers))
    assert "original layout" in text
    assert f"hf download OpenGVLab/{repository} --local-dir" in text


def test_other_families_and_quantised_weights_are_refused(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    assert "quantised by 'awq'" in message(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    text = message(folder)
    assert "'llava'" in text and "internvl and qwen2_5_vl" in text
    (folder / "config.json").write_text("{")
    assert "not readable JSON" in message(folder)


def test_an_unknown_weight_dtype_names_the_accepted_ones(internvl_folder):
    assert "default, fp32, bf16, fp16, fp8_e4m3fn" in message(internvl_folder, "int8")


def test_lost_small_files_give_one_sentence(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "no pictures")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").unlink()
    text = message(folder)
    assert "image processor" in text and "cannot be read" in text and "hf download" in text
    folder = checkpoints.copied(internvl_folder, tmp_path / "no words")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    text = message(folder)
    assert "tokenizer" in text and "hf download" in text


def test_a_tokenizer_of_another_model_is_refused(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    picture = config["image_token_id"]
    (folder / "config.json").write_text(json.dumps(config | {"image_token_id": 5}))
    assert f"gives <IMG_CONTEXT> the id {picture} and config.json 5" in message(folder)
    qwen = checkpoints.qwen(tmp_path / "qwen")
    for path in qwen.glob("*"):
        if path.name in {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}:
            (folder / path.name).write_bytes(path.read_bytes())
    assert "lacks <img>, </img>" in message(folder)


def test_code_in_the_folder_is_never_run(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "model")
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    for name, kinds in {
        "config.json": ("AutoConfig", "AutoModel"),
        "tokenizer_config.json": ("AutoTokenizer",),
        "preprocessor_config.json": ("AutoImageProcessor",),
    }.items():
        settings = json.loads((folder / name).read_text())
        settings["auto_map"] = {kind: ["evil.Evil", None] if "Tok" in kind else "evil.Evil" for kind in kinds}
        (folder / name).write_text(json.dumps(settings))
    assert torch.equal(states(folder), states(internvl_folder))
    assert not marker.exists()


def test_an_old_transformers_or_a_broken_torchvision_is_one_sentence(internvl_folder, monkeypatch):
    import transformers

    with monkeypatch.context() as patch:
        patch.setattr(transformers, "__version__", "4.51.3")
        assert "4.51.3 is too old" in message(internvl_folder)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision.transforms.v2", None)
        assert "torchvision cannot be imported" in message(internvl_folder)


def test_importing_the_package_imports_neither_transformers_nor_diffusers():
    package = Path(squeeze_core.mllm.__path__[0])
    names = [path.stem for path in package.glob("*.py") if path.stem != "__init__"]
    program = "import sys\n" + "".join(f"import squeeze_core.mllm.{name}\n" for name in names)
    program += "from squeeze_core.mllm import *\n"
    program += "assert not {'transformers', 'diffusers', 'torchvision', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("stored", "weight_dtype", "warned"),
    [
        (torch.float16, "default", True),
        (torch.float16, "bf16", False),
        (torch.bfloat16, "default", False),
        (torch.bfloat16, "fp16", True),
    ],
)
def test_an_mllm_that_would_compute_in_fp16_is_warned_of(tmp_path, caplog, stored, weight_dtype, warned):
    folder = checkpoints.internvl(tmp_path / "model")
    file = folder / "model.safetensors"
    save_file({key: tensor.to(stored) for key, tensor in load_file(file).items()}, file, {"format": "pt"})
    load(folder, weight_dtype)
    assert ("may overflow" in caplog.text) == warned
