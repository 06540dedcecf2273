"""A workflow file as the page saves it -> the graph the server runs ("API format")."""

from __future__ import annotations

from dataclasses import dataclass

NORMAL, MUTED, BYPASSED = 0, 2, 4
INPUTS = -10  # what a link inside a subgraph comes from when it comes from outside
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3", "BOUNDING_BOXES")
PAGE_ONLY = ("Note", "MarkdownNote")
AFTER_SEED = ("fixed", "increment", "decrement", "randomize")  # the page keeps one of them behind a seed


def aggregate() -> dict:
    """Aggregate Layers: all layers of what "encode" says, with the aggregator of "toy"."""
    inputs = {"states": ["encode", 0], "dla": ["toy", 3], "text_layers": "all", "image_layers": "all"}
    return {"class_type": "SqueezeAggregate", "inputs": inputs}


def workflow_to_prompt(workflow: dict, object_info: dict) -> dict:
    """What the page would send for this workflow.

    Enough for example workflows: plain nodes, Reroute, PrimitiveNode, bypassed nodes, growing inputs
    (their sockets carry full names, "images.picture_1"), growing choices, and subgraphs, whose nodes come out
    flat under ids such as "4:14". Raises KeyError for a node that the server lacks and ValueError when widget
    values do not fit the node's inputs.
    """
    subgraphs = {graph["id"]: graph for graph in (workflow.get("definitions") or {}).get("subgraphs") or []}
    links = {link[0]: (link[1], link[2]) for link in workflow["links"]}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    prompt: dict = {}
    _flatten(_Graph(nodes, links, subgraphs), object_info, prompt)
    return prompt


@dataclass
class _Graph:
    """The root, or a subgraph inside the node that stands for it."""

    nodes: dict
    links: dict
    subgraphs: dict
    prefix: str = ""
    parent: _Graph | None = None
    host: dict | None = None  # the node in `parent`
    definition: dict | None = None

    def inside(self, node: dict) -> _Graph:
        graph = self.subgraphs[node["type"]]
        links = {link["id"]: (link["origin_id"], link["origin_slot"]) for link in graph["links"]}
        nodes = {inner["id"]: inner for inner in graph["nodes"]}
        return _Graph(nodes, links, self.subgraphs, f"{self.prefix}{node['id']}:", self, node, graph)


def _flatten(graph: _Graph, object_info: dict, prompt: dict) -> None:
    for node in graph.nodes.values():
        if node["type"] in (*PAGE_ONLY, "Reroute", "PrimitiveNode") or node.get("mode", NORMAL) != NORMAL:
            continue
        if node["type"] in graph.subgraphs:
            _flatten(graph.inside(node), object_info, prompt)
            continue
        inputs = _widget_values(node, object_info[node["type"]])
        for socket in node.get("inputs") or []:
            if socket.get("link") is not None:
                source = _source(graph, socket["link"], socket["type"])
                if source is not None:
                    inputs[socket["name"]] = source
        title = node.get("title") or node["type"]
        prompt[f"{graph.prefix}{node['id']}"] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": title},
        }


def _source(graph: _Graph, link: int, kind: str):
    """[node id, output] that a link comes from, through reroutes, bypassed nodes and subgraphs; or a constant."""
    origin, slot = graph.links[link]
    if origin == INPUTS:
        return _from_outside(graph, slot, kind)
    node = graph.nodes[origin]
    if node["type"] in graph.subgraphs:
        inner = graph.inside(node)
        (inside,) = inner.definition["outputs"][slot]["linkIds"]
        return _source(inner, inside, kind)
    if node["type"] == "PrimitiveNode":
        return node["widgets_values"][0]
    if node["type"] == "Reroute" or node.get("mode", NORMAL) == BYPASSED:
        candidates = [i for i in node.get("inputs") or [] if node["type"] == "Reroute" or i["type"] == kind]
        through = next((i["link"] for i in candidates if i.get("link") is not None), None)
        return None if through is None else _source(graph, through, kind)
    if node.get("mode", NORMAL) == MUTED:
        return None
    return [f"{graph.prefix}{origin}", slot]


def _from_outside(graph: _Graph, slot: int, kind: str):
    """What the node that stands for a subgraph is given: by a link, or by a widget of its own."""
    name = graph.definition["inputs"][slot]["name"]
    sockets = graph.host["inputs"]
    socket = next(socket for socket in sockets if socket["name"] == name)
    if socket.get("link") is not None:
        return _source(graph.parent, socket["link"], kind)
    promoted = [socket["name"] for socket in sockets if "widget" in socket]
    return graph.host["widgets_values"][promoted.index(name)] if name in promoted else None


def _widget_values(node: dict, info: dict) -> dict:
    values = node.get("widgets_values")
    if values is None:
        return {}
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if name != "videopreview"}
    remaining = list(values)
    taken: dict = {}
    for group in ("required", "optional"):
        _take(info["input"].get(group, {}), "", remaining, taken)
    if any(value not in (None, "", "image") for value in remaining):
        raise ValueError(f"{node['type']} ({node['id']}): widget values left over: {remaining}.")
    return taken


def _take(specification: dict, prefix: str, remaining: list, taken: dict) -> None:
    """Take from `remaining` one value a widget, in the order of the node's inputs."""
    for name, entry in specification.items():
        kind, options = entry[0], (entry[1] if len(entry) > 1 else {})
        is_widget = (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput")
        if not is_widget:
            continue
        if not remaining:
            raise ValueError(f"No widget value is left for {prefix + name}.")
        value = remaining.pop(0)
        # A list as such is no link: the page says so.
        taken[prefix + name] = {"__value__": value} if isinstance(value, list) else value
        is_seed = options.get("control_after_generate") or (kind == "INT" and name in ("seed", "noise_seed"))
        if is_seed and remaining and remaining[0] in AFTER_SEED:
            remaining.pop(0)
        if options.get("image_upload") and remaining and remaining[0] == "image":
            remaining.pop(0)
        if kind == "COMFY_DYNAMICCOMBO_V3":
            chosen = next(option for option in options["options"] if option["key"] == value)
            for group in ("required", "optional"):
                _take(chosen["inputs"].get(group, {}), f"{prefix}{name}.", remaining, taken)
