"""Imports go one way, as `docs/architecture.md` draws it: a room knows those above it in ROOMS, none below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "squeeze_core"
# From the ground up. A name is a folder or a module of squeeze_core; each may import its own line and those before.
ROOMS = (
    (
        "errors",
        "finite",
        "files",
        "shard",
        "draws",
        "offload",
        "pretrained",
        "images",
        "picture_files",
        "contact_sheet",
        "config_files",
    ),
    ("layers", "lap", "aligner", "dla", "gate", "gate_rows", "windows", "sigmas"),
    ("attention",),
    ("references",),
    ("mllm",),
    ("vision",),
    ("flux",),
    ("adapter", "x2i", "generation", "plots"),
    ("data",),
    ("pipeline",),
    ("toyworld",),
    ("evaluation",),
    ("planning",),
    ("scene", "best_scene"),
    ("data/music", "toyworld/music"),
    ("training",),
    ("toyworld/training", "toyworld/making"),
    ("bench", "diagnosis"),
    ("commands", "cli"),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# Types of the host that the core must never need, and what of the core the nodes have no use for.
HOST = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "node_helpers", "nodes", "server"}
NOT_FOR_NODES = {
    "data/music",
    "toyworld/music",
    "training",
    "toyworld/training",
    "toyworld/making",
    "bench",
    "diagnosis",
    "commands",
    "cli",
}


def room(parts: tuple[str, ...]) -> str | None:
    """The room of a dotted name below squeeze_core; None for the package itself."""
    names = ("/".join(parts[:2]), parts[0] if parts else "")
    return next((name for name in names if name in LEVEL), None)


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, absolute dotted name) of each import, inside functions too; those for type checkers are left out."""
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((node.lineno, (*base, alias.name)) for alias in node.names)


def wrong_arrows(path: Path) -> list[str]:
    own = room(path.relative_to(CORE).with_suffix("").parts)
    found = []
    for line, (first, *rest) in imports(path):
        other = room(tuple(rest)) if first == "squeeze_core" else None
        if first in HOST or (own and other and LEVEL[other] > LEVEL[own]):
            found.append(f"{path.relative_to(ROOT)}:{line} imports {'.'.join((first, *rest))}")
    return found


def test_every_module_has_its_room():
    for path in CORE.rglob("*.py"):
        assert room(path.relative_to(CORE).with_suffix("").parts) or path == CORE / "__init__.py", path


def test_imports_go_one_way_and_never_to_the_host():
    assert [arrow for path in sorted(CORE.rglob("*.py")) for arrow in wrong_arrows(path)] == []


def test_nodes_know_the_core_and_neither_its_command_line_nor_its_training():
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for line, (first, *rest) in imports(path):
            assert not (first == "squeeze_core" and room(tuple(rest)) in NOT_FOR_NODES), f"{path}:{line}"


@pytest.mark.parametrize(
    "inside", ["from ..pipeline import SqueezePipeline", "def f():\n    from ..training import loop"]
)
def test_a_wrong_arrow_is_found_also_inside_a_function(monkeypatch, tmp_path, inside):
    module = tmp_path / "squeeze_core" / "flux" / "bad.py"
    module.parent.mkdir(parents=True)
    module.write_text(inside + "\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "CORE", tmp_path / "squeeze_core")
    assert len(wrong_arrows(module)) == 1


def test_the_page_lists_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for names in ROOMS for name in names if f"`{name}" not in page] == []
