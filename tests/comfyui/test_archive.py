"""What the registry would serve, installed in a ComfyUI of its own: tracked files less those of .comfyignore."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from comfy_server import ComfyServer

CHECKOUT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> set[str]:
    command = ["git", "-C", str(CHECKOUT), "ls-files", "-z", *arguments]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"THE ARCHIVE WAS NOT TESTED: {CHECKOUT} is no git checkout")
    return {name for name in listed.stdout.split("\0") if name}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Packed as `comfy node pack` packs: tracked files, less what .comfyignore names."""
    names = git() - git("--cached", "--ignored", "--exclude-from=.comfyignore")
    packed = tmp_path_factory.mktemp("archive") / "node.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in sorted(names):
            if (CHECKOUT / name).is_file():  # a file that is deleted but not yet committed
                writer.write(CHECKOUT / name, name)
    return packed


def test_the_archive_has_the_pack_and_nothing_of_its_workshop(archive):
    names = zipfile.ZipFile(archive).namelist()
    rooms = {name.split("/")[0] for name in names}
    assert {"__init__.py", "nodes", "squeeze_core", "workflows", "locales", "requirements.txt"} <= rooms
    assert not rooms & {"tests", "benchmarks", ".ci", ".github"}
    assert not [name for name in names if name.startswith("workflows/make/")]
    assert archive.stat().st_size < 60e6


def test_the_archive_runs_the_toy_workflow_in_a_fresh_comfyui(archive, comfyui_path, tmp_path):
    installed = tmp_path / "unpacked"
    zipfile.ZipFile(archive).extractall(installed)
    server = ComfyServer(comfyui_path, installed, tmp_path / "base")
    try:
        server.wait_until_ready()
        server.pack_import_seconds()  # fails when the import failed
        graph = json.loads((installed / "workflows" / "api" / "toy_world.json").read_text(encoding="utf-8"))
        outputs = server.run_graph(graph)
    finally:
        server.stop()
    assert any(entry.get("images") for entry in outputs.values())
