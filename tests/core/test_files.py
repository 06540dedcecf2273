"""One list of model files: README, the workflows' links and the doctor say the same."""

import json
from pathlib import Path

import pytest

from squeeze_core.diagnosis.files import FILES
from squeeze_core.diagnosis.models import WANTED

CHECKOUT = Path(__file__).resolve().parents[2]
PUBLISHED = [file for file in FILES.values() if file.where]


def links(path):
    """Names, addresses and folders of all models that a workflow's nodes name."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    nodes = [
        *graph["nodes"],
        *(n for each in graph.get("definitions", {}).get("subgraphs", []) for n in each["nodes"]),
    ]
    return [model for node in nodes for model in node.get("properties", {}).get("models", [])]


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name)
def test_readme_has_each_file_as_the_list_has_it(file):
    assert file.row in (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((CHECKOUT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_a_workflows_links_are_those_of_the_list(path):
    for model in links(path):
        file = FILES[model["name"]]
        assert (model["url"], model["directory"]) == (file.url, file.directory)


def test_every_published_file_is_linked_by_a_workflow_and_fetched_by_the_doctor():
    linked = {model["name"] for path in (CHECKOUT / "workflows").glob("*.json") for model in links(path)}
    assert linked == {file.name for file in PUBLISHED}
    commands = {wanted.get for wanted in WANTED}
    assert {file.get for file in PUBLISHED} <= commands


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name)
def test_the_doctor_finds_each_file_under_the_name_that_the_workflows_use(file, tmp_path):
    import torch
    from safetensors.torch import save_file

    from squeeze_core.diagnosis.models import inventory

    save_file({"a": torch.zeros(1)}, tmp_path / file.name)
    found = {wanted.get: files for wanted, files in inventory({file.directory: [tmp_path]})}
    assert [each.name for each in found[file.get]] == [file.name]
    assert sum(bool(files) for files in found.values()) == 1  # and takes it for no other
