"""What all workflows share: three groups from left to right, one subgraph with all machinery, notes.

A workflow is readable when it opens: outside only what a person changes. Ids of nodes and links are unique over
the root and the subgraph; promoted widgets have the same values inside and outside.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinds import KINDS

from squeeze_core.diagnosis.files import FILES

FOLDER = Path(__file__).parents[1]
GAP = 60  # between nodes, so that no title touches
DARK = {"color": "#222", "bgcolor": "#000"}
GREEN = {"color": "#232", "bgcolor": "#353"}
PURPLE = {"color": "#323", "bgcolor": "#535"}
BLUE_FRAME, PURPLE_FRAME = "#5b94b8", "#9a7cc4"
INPUTS, OUTPUTS = -10, -20  # what links at a subgraph's edge come from and go to


class Graph:
    """Nodes and links, of the root or of the subgraph."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.nodes: list[dict] = []
        self.links: list[tuple[int, int, int, int, int, str]] = []
        self._x, self._y = 0, 0

    def column(self, x: int, y: int = 0) -> None:
        """Where the next nodes stand, one below the other."""
        self._x, self._y = x, y

    def add(self, kind: str, size: Sequence[int], values: Sequence = (), **more: Any) -> dict:
        """A node below the last one. more: title, colours, properties."""
        inputs, outputs = KINDS.get(kind, ("", ""))
        node = {
            "id": self.workflow.next("node"),
            "type": kind,
            "pos": list(more.pop("at", (self._x, self._y))),
            "size": list(size),
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": [_socket(part) for part in inputs.split()],
            "outputs": [_output(part) for part in outputs.split()],
            "properties": {} if kind == "MarkdownNote" or "-" in kind else {"Node name for S&R": kind},
            "widgets_values": list(values),
            **more,
        }
        listed = [
            {"name": value, "url": FILES[value].url, "directory": FILES[value].directory}
            for value in values
            if isinstance(value, str) and value in FILES and FILES[value].url
        ]
        if listed:
            node["properties"]["models"] = listed
        self.nodes.append(node)
        self._y = node["pos"][1] + size[1] + GAP
        return node

    def link(self, origin: dict, target: dict, name: str, output: int | str = 0) -> None:
        """From an output, by number or name, to the input of that name; a widget becomes one."""
        slot = output if isinstance(output, int) else [each["name"] for each in origin["outputs"]].index(output)
        kind = origin["outputs"][slot]["type"]
        number, at = self._taken(target, name, kind)
        origin["outputs"][slot]["links"].append(number)
        self.links.append((number, origin["id"], slot, target["id"], at, kind))

    def edge(self, slot: int, target: dict, name: str, kind: str) -> int:
        """From the subgraph's own input to a node inside it."""
        number, at = self._taken(target, name, kind)
        self.links.append((number, INPUTS, slot, target["id"], at, kind))
        return number

    def out(self, origin: dict, slot: int, output: int) -> int:
        number = self.workflow.next("link")
        origin["outputs"][output]["links"].append(number)
        self.links.append((number, origin["id"], output, OUTPUTS, slot, origin["outputs"][output]["type"]))
        return number

    def _taken(self, target: dict, name: str, kind: str) -> tuple[int, int]:
        names = [socket["name"] for socket in target["inputs"]]
        if name not in names:
            target["inputs"].append({"name": name, "type": kind, "link": None, "widget": {"name": name}})
            names.append(name)
        socket = target["inputs"][names.index(name)]
        assert socket["link"] is None, f"{target['type']}.{name} has a link"
        socket["link"] = self.workflow.next("link")
        return socket["link"], names.index(name)


class Workflow:
    """One file. Fill `inner` with the machinery, name its edges, then `arrange` and `write`."""

    def __init__(self, name: str, title: str, description: str) -> None:
        self.name, self.title, self.description = name, title, description
        self._counts = {"node": 0, "link": 0}
        self.inner = Graph(self)
        self.root = Graph(self)
        self.inputs: list[dict] = []
        self.outputs: list[dict] = []
        self.values: list = []
        self.groups: list[dict] = []

    def next(self, what: str) -> int:
        self._counts[what] += 1
        return self._counts[what]

    def identity(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"squeeze-mllm/{self.name}/{name}"))

    def given(self, name: str, kind: str, *targets: tuple[dict, str]) -> None:
        """A socket of the subgraph."""
        slot = len(self.inputs)
        links = [self.inner.edge(slot, node, socket, kind) for node, socket in targets]
        self.inputs.append(
            {"id": self.identity(name), "name": name, "type": kind, "linkIds": links, "pos": [-140, 20 * slot]}
        )

    def promote(self, name: str, kind: str, value: Any, *targets: tuple[dict, str]) -> None:
        """A widget of the subgraph, and the same value in each node behind it."""
        self.given(name, kind, *targets)
        self.inputs[-1]["widget"] = True
        self.values.append(value)

    def give(self, name: str, origin: dict, output: int = 0) -> None:
        slot, kind = len(self.outputs), origin["outputs"][output]["type"]
        links = [self.inner.out(origin, slot, output)]
        self.outputs.append(
            {
                "id": self.identity(f"out {name}"),
                "name": name,
                "type": kind,
                "linkIds": links,
                "pos": [0, 20 * slot],
            }
        )

    def machine(self, at: Sequence[int], size: Sequence[int]) -> dict:
        """The node that stands for the subgraph."""
        node = self.root.add(self.identity("subgraph"), size, self.values, at=tuple(at), title=self.title, **PURPLE)
        for one in self.inputs:
            socket = {"name": one["name"], "type": one["type"], "link": None}
            if one.pop("widget", False):
                socket["widget"] = {"name": one["name"]}
            node["inputs"].append(socket)
        node["outputs"] = [{"name": one["name"], "type": one["type"], "links": []} for one in self.outputs]
        return node

    def frame(self, title: str, nodes: Sequence[dict], colour: str = BLUE_FRAME) -> None:
        """A numbered group around nodes."""
        left = min(node["pos"][0] for node in nodes) - 12
        top = min(node["pos"][1] for node in nodes) - 75
        right = max(node["pos"][0] + node["size"][0] for node in nodes) + 12
        bottom = max(node["pos"][1] + node["size"][1] for node in nodes) + 15
        number = len(self.groups) + 1
        self.groups.append(
            {
                "id": number,
                "title": f"{number}  {title}",
                "bounding": [left, top, right - left, bottom - top],
                "color": colour,
                "font_size": 22,
                "flags": {},
            }
        )

    def as_dict(self) -> dict:
        _shrink(self.inner)
        inside = self.inner.nodes
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        right = max(node["pos"][0] + node["size"][0] for node in inside) + 100
        for one in self.outputs:
            one["pos"][0] = right
        state = {
            "lastGroupId": 0,
            "lastNodeId": self._counts["node"],
            "lastLinkId": self._counts["link"],
            "lastRerouteId": 0,
        }
        subgraph = {
            "id": self.identity("subgraph"),
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": self.title,
            "inputNode": {"id": INPUTS, "bounding": [-260, 60, 140, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": OUTPUTS, "bounding": [right - 20, 200, 120, 40 + 20 * len(self.outputs)]},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "widgets": [],
            "nodes": inside,
            "groups": [],
            "links": [dict(zip(names, link, strict=True)) for link in self.inner.links],
            "extra": {"workflowRendererVersion": "LG"},
            "category": "Squeeze",
            "description": self.description,
        }
        return {
            "id": self.identity("workflow"),
            "revision": 0,
            "last_node_id": self._counts["node"],
            "last_link_id": self._counts["link"],
            "nodes": self.root.nodes,
            "links": [list(link) for link in self.root.links],
            "groups": self.groups,
            "definitions": {"subgraphs": [subgraph]},
            "config": {},
            "extra": {"ds": {"scale": 0.75, "offset": [130, 160]}, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def write(self) -> Path:
        path = FOLDER / f"{self.name}.json"
        path.write_text(json.dumps(self.as_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return path


def _shrink(graph: Graph) -> None:
    """Growing inputs have one free socket, as the page shows them; links move along."""
    for node in graph.nodes:
        kept, free = [], False
        for socket in node["inputs"]:
            grows = "." in socket["name"] and socket["link"] is None
            if not (grows and free):
                kept.append(socket)
            free = free or grows
        node["inputs"] = kept
        slots = {socket["link"]: slot for slot, socket in enumerate(kept) if socket["link"] is not None}
        graph.links = [(*k[:4], slots[k[0]], k[5]) if k[3] == node["id"] else k for k in graph.links]


def _socket(part: str) -> dict:
    """ "name:TYPE", with ? behind an optional one; "image:IMAGE" or, for its type in small letters, "IMAGE"."""
    name, _, kind = part.rstrip("?").partition(":")
    socket: dict = {"name": name if kind else name.lower(), "type": kind or name, "link": None}
    if part.endswith("?"):
        socket["shape"] = 7
    if "." in name:
        socket["label"] = name.partition(".")[2]
    return socket


def _output(part: str) -> dict:
    name, _, kind = part.partition(":")
    return {"name": name, "type": kind or name, "links": []}
