"""Help pages and translations: complete, about things that exist, and served where the page looks."""

import json
import re
from pathlib import Path

import pytest
from comfy_server import PACK_FOLDER

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted((CHECKOUT / "nodes" / "web" / "docs").glob("*.md"))
LANGUAGES = ("zh", "ja", "fr", "ko", "es")


@pytest.fixture(scope="module")
def nodes(server) -> dict:
    """The pack's nodes as the server describes them."""
    return {name: node for name, node in server.object_info().items() if name.startswith("Squeeze")}


def inputs_of(node: dict) -> dict[str, list[str]]:
    """Input name -> names of its sockets: its own, or those that it grows."""
    names = {}
    for group in ("required", "optional"):
        for name, specification in node["input"].get(group, {}).items():
            grown = specification[0] == "COMFY_AUTOGROW_V3"
            names[name] = [f"{name}_{n}" for n in specification[1]["template"]["names"]] if grown else [name]
    return names


def test_every_node_has_a_help_page_and_no_page_is_left_over(nodes):
    assert {path.stem for path in PAGES} == set(nodes)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_help_page_is_served_and_tells_of_every_socket(path, server, nodes):
    text = server.get_bytes(f"/extensions/{PACK_FOLDER}/docs/{path.name}").decode()
    assert text == path.read_text(encoding="utf-8")
    node = nodes[path.stem]
    assert text.startswith(f"# {node['display_name']}\n")
    for name in inputs_of(node):
        shown = "picture_1" if name == "images" else name
        assert re.search(rf"\b{shown}\b", text), f"{shown} is not explained"
    for name in node["output_name"]:
        assert f"| {name} |" in text, f"the output {name} is not explained"
    assert "## Example" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_help_page_names_only_templates_that_exist(path):
    templates = {workflow.stem for workflow in (CHECKOUT / "workflows").glob("*.json")}
    named = set(re.findall(r"\*((?:toy|squeeze|gate)_\w+)\*", path.read_text(encoding="utf-8")))
    assert named <= templates


def test_the_gates_page_warns_of_what_goes_wrong_downstream():
    text = (CHECKOUT / "nodes" / "web" / "docs" / "SqueezeTimestepGate.md").read_text(encoding="utf-8")
    for subject in (
        "ConditioningSetTimestepRange",
        "ReferenceLatent",
        "Areas",
        "denoise",
        "Without references",
        "Nunchaku",
        "**keep**",
        "*model*",
    ):
        assert subject in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_is_translated_and_served(language, server, nodes):
    served = server.get("/i18n")[language]
    assert all(served["dataTypes"].values())
    definitions = served["nodeDefs"]
    assert {name for name in definitions if name.startswith("Squeeze")} == set(nodes)
    for name, node in nodes.items():
        translated = definitions[name]
        assert translated["display_name"] and translated["description"]
        names = inputs_of(node)
        wanted = set(names) | {socket for sockets in names.values() for socket in sockets}
        assert set(translated.get("inputs", {})) == wanted, name
        assert set(translated.get("outputs", {})) == {str(n) for n in range(len(node["output"]))}, name
        for entry in (*translated.get("inputs", {}).values(), *translated.get("outputs", {}).values()):
            assert entry["name"] and entry["tooltip"], name


def test_data_types_are_those_of_the_sockets(nodes):
    kinds = {kind for node in nodes.values() for kind in node["output"] if str(kind).startswith("SQUEEZE_")}
    for language in LANGUAGES:
        main = json.loads((CHECKOUT / "locales" / language / "main.json").read_text(encoding="utf-8"))
        assert set(main["dataTypes"]) == kinds


def test_growing_sockets_have_their_tooltip_in_english_too(server, nodes):
    """The page finds none for them in the node itself."""
    english = server.get("/i18n")["en"]["nodeDefs"]
    for name, node in nodes.items():
        for given, sockets in inputs_of(node).items():
            if sockets != [given]:
                assert set(sockets) == set(english[name]["inputs"])
                assert all(english[name]["inputs"][socket]["tooltip"] for socket in sockets)


def test_no_translation_holds_signs_that_the_page_would_read_as_commands():
    """The page's translator gives { } @ | $ a meaning of their own."""

    def texts(value):
        yield from ([value] if isinstance(value, str) else (t for inner in value.values() for t in texts(inner)))

    for path in (CHECKOUT / "locales").glob("*/*.json"):
        for text in texts(json.loads(path.read_text(encoding="utf-8"))):
            assert not set(text) & set("{}@|$"), f"{path.parent.name}: {text}"
