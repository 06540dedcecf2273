"""Listing the MLLM folders of a disk."""

import os

import pytest

from squeeze_core.mllm import find_models

from . import checkpoints


def test_models_are_found_up_to_two_levels_below_and_sorted(tmp_path, internvl_folder):
    checkpoints.copied(internvl_folder, tmp_path / "b")
    checkpoints.copied(internvl_folder, tmp_path / "OpenGVLab" / "a")
    checkpoints.copied(internvl_folder, tmp_path / "x" / "y" / "too deep")
    checkpoints.qwen(tmp_path / "Qwen" / "q")
    found = find_models([tmp_path])
    assert [model.name for model in found] == ["b", "OpenGVLab/a", "Qwen/q"]
    assert [model.model_type for model in found] == ["internvl", "internvl", "qwen2_5_vl"]
    assert all(model.supported and (model.hidden, model.layers) == (32, 3) for model in found)
    assert found[0].bytes == (tmp_path / "b" / "model.safetensors").stat().st_size
    assert [model.name for model in find_models(tmp_path / "b")] == ["b"]


def test_what_cannot_be_loaded_is_listed_with_its_reason(tmp_path, internvl_folder):
    checkpoints.original_internvl(tmp_path / "InternVL3-8B")
    no_weights = checkpoints.copied(internvl_folder, tmp_path / "no weights")
    (no_weights / "model.safetensors").unlink()
    original, empty = find_models([tmp_path])
    assert not original.supported and "InternVL3-8B-hf" in original.reason
    assert (original.hidden, original.layers) == (3584, 28)
    assert not empty.supported and "no safetensors weights" in empty.reason


def test_a_folder_reached_twice_is_listed_once(tmp_path, internvl_folder):
    folder = checkpoints.copied(internvl_folder, tmp_path / "LLM" / "model")
    (tmp_path / "VLM").symlink_to(tmp_path / "LLM")
    assert [model.path for model in find_models([tmp_path / "LLM", tmp_path / "VLM", tmp_path])] == [folder]


def test_bad_folders_are_passed_over(tmp_path, internvl_folder):
    checkpoints.copied(internvl_folder, tmp_path / "good")
    for name, text in {"json": "{", "list": "[]", "other": '{"model_type": "llama"}', "odd": '"x"'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    found = find_models([tmp_path, tmp_path / "missing", tmp_path / "good" / "config.json"])
    assert [model.name for model in found] == ["good"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folders_are_passed_over(tmp_path, internvl_folder):
    checkpoints.copied(internvl_folder, tmp_path / "good")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    try:
        assert [model.name for model in find_models([tmp_path])] == ["good"]
    finally:
        locked.chmod(0o700)


def test_internvl_2_5_in_its_original_layout_is_told_how_to_become_one_that_loads(tmp_path):
    folder = checkpoints.original_internvl(tmp_path / "InternVL2_5-4B", hidden=2048, layers=36)
    (model,) = find_models(folder)
    assert not model.supported and "convert_internvl_weights_to_hf.py" in model.reason
