"""The toy world on disk: the same bytes, all or nothing, and nobody's files but its own."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.toyworld import flux, vae, world

from .conftest import UNTRAINED

ROOT = Path(__file__).resolve().parents[2]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def start_build(folder: Path) -> subprocess.Popen:
    code = f"from squeeze_core import toyworld; toyworld.build({str(folder)!r}, {UNTRAINED})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)


def test_building_twice_gives_the_same_bytes(toy_paths, tmp_path):
    assert digests(toyworld.build(tmp_path / "again", UNTRAINED).folder) == digests(toy_paths.folder)


def test_another_seed_gives_other_weights_and_the_global_random_numbers_stay(toy_paths, tmp_path):
    before = torch.get_rng_state()
    other = toyworld.build(tmp_path / "seeded", seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(
        load_file(other.flux_file)["img_in.weight"], load_file(toy_paths.flux_file)["img_in.weight"]
    )


def test_a_sound_toy_world_is_left_as_it_is(toy_paths):
    before = {path: path.stat().st_mtime_ns for path in toy_paths.folder.rglob("*")}
    toyworld.build(toy_paths.folder, UNTRAINED)
    assert {path: path.stat().st_mtime_ns for path in toy_paths.folder.rglob("*")} == before


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_toy_world_is_made_again(toy_paths, tmp_path, damage):
    paths = toyworld.ToyWorldPaths(shutil.copytree(toy_paths.folder, tmp_path / "damaged"))
    if damage == "changed":
        data = bytearray(paths.adapter.read_bytes())
        data[-1] ^= 1
        paths.adapter.write_bytes(data)
    else:
        (paths.mllm / "merges.txt").unlink()
    assert not toyworld.is_complete(paths.folder, UNTRAINED)
    toyworld.build(paths.folder, UNTRAINED)
    assert digests(paths.folder) == digests(toy_paths.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_folder_of_the_users_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SqueezeError, match=r"not empty.*Choose"):
        toyworld.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_builders_at_the_same_time_leave_one_sound_toy_world(toy_paths, tmp_path):
    builders = [start_build(tmp_path / "shared") for _ in range(2)]
    assert [builder.wait(timeout=300) for builder in builders] == [0, 0]
    assert digests(tmp_path / "shared") == digests(toy_paths.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_a_builder_that_comes_second_keeps_the_firsts_files(toy_paths, tmp_path):
    first = shutil.copytree(toy_paths.folder, tmp_path / "first")
    inode = (first / "manifest.json").stat().st_ino
    world._place(shutil.copytree(toy_paths.folder, tmp_path / "late"), first, UNTRAINED)
    assert (first / "manifest.json").stat().st_ino == inode


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(folder, seed, weights):
        (folder / "half").write_text("x")
        raise error

    monkeypatch.setattr(world, "_write", fail)
    with pytest.raises(SqueezeError, match="No space left"):
        toyworld.build(tmp_path / "full")
    assert list(tmp_path.iterdir()) == []


def test_the_default_folder_lies_in_the_platforms_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert toyworld.default_folder() == tmp_path / "squeeze-mllm" / f"toyworld-{toyworld.VERSION}"
    assert toyworld.default_folder(3) != toyworld.default_folder()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform != "win32":
        assert toyworld.default_folder().parent == tmp_path / ".cache" / "squeeze-mllm"


def test_another_process_without_diffusers_gives_the_same_bytes(toy_paths, tmp_path):
    """ComfyUI's users may not have it."""
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        f"from squeeze_core import toyworld; toyworld.build({str(tmp_path / 'bare')!r}, {UNTRAINED})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
    assert digests(tmp_path / "bare") == digests(toy_paths.folder)


def test_names_and_shapes_are_those_of_diffusers():
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    for made, written in (
        (FluxTransformer2DModel(**flux.CONFIG), flux.state(0)),
        (AutoencoderKL(**vae.CONFIG), vae.state(0)),
    ):
        made = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
        assert made == {name: tuple(tensor.shape) for name, tensor in written.items()}
