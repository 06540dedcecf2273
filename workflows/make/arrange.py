"""The outside of a workflow: pictures on the left, the machine in the middle, the result on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from form import DARK, PURPLE_FRAME, Workflow

LEFT, MIDDLE, RIGHT = 310, 420, 450  # widths
BOTTOM = 750  # 1300 x 800 with frames: 70% on a page of 1366 x 768
TOY = 170  # height in Nodes 2.0
GAP = 60  # between groups


@dataclass
class Outside:
    """What a person sees.

    pictures: titles of Load Image nodes, one for each socket `picture...` of the machine. read: the first note.
    files: the second; empty for none. machine, result: heights of the subgraph's node and of the picture.
    said: the frames' titles.
    """

    read: str
    files: str = ""
    pictures: Sequence[str] = ("The subject",)
    sockets: Sequence[str] = ("picture",)
    note: int = 190
    machine: int = 410
    said: tuple[str, str, str] = ("Subject", "Say where, set the gate", "Result")
    result: int = 405
    saved: str = ""
    preview: str = "Which step hears what"
    shown: str = "gate"
    left: int = LEFT
    middle: int = MIDDLE
    right: int = RIGHT


def arrange(w: Workflow, out: Outside) -> None:
    """Everything outside, joined to the machine."""
    if len(out.pictures) > 1:
        _several(w, out)
        return
    w.root.add("MarkdownNote", (LEFT, out.note), [out.read], at=(0, 0), title="Read me", **DARK)
    top = out.note + 115
    picture = _load(w, out.pictures[0], (0, top), (LEFT, BOTTOM - top))
    finish(w, out, [picture], [(picture, 0, out.sockets[0])])


def _several(w: Workflow, out: Outside) -> None:
    """One below the other, beside the first note. All but the first are toys: ComfyUI has one picture only."""
    wide, across = 260, 260
    toys = len(out.pictures) - 1
    high = BOTTOM - 40 - toys * (TOY + GAP)
    w.root.add("MarkdownNote", (wide - 30, 345), [out.read], at=(0, 40), title="Read me", **DARK)
    left = [_load(w, out.pictures[0], (across, 40), (wide, high))]
    for number, title in enumerate(out.pictures[1:]):
        at = (across, 40 + high + GAP + number * (TOY + GAP))
        left.append(w.root.add("SqueezeToyWorld", (wide, TOY), [2 * number], at=at, title=title))
    out.left, out.middle, out.right = across + wide, 380, 410
    outputs = [0] + [4] * toys
    finish(w, out, left, list(zip(left, outputs, out.sockets)))


def _load(w: Workflow, title: str, at: tuple[int, int], size: tuple[int, int]) -> dict:
    return w.root.add("LoadImage", size, ["example.png", "image"], at=at, title=title)


def finish(w: Workflow, out: Outside, left: Sequence[dict], joined: Sequence[tuple[dict, int, str]]) -> None:
    """The machine and what comes out of it; left: the nodes of the first group."""
    root = w.root
    x_middle = out.left + GAP
    x_right = x_middle + out.middle + GAP
    machine = w.machine((x_middle, 40), (out.middle, out.machine))
    top = 40 + out.machine + 65
    preview = root.add("PreviewImage", (out.middle, BOTTOM - top), at=(x_middle, top), title=out.preview)
    tall = out.result if out.files else BOTTOM - 40
    save = root.add("SaveImage", (out.right, tall), [out.saved or w.name], at=(x_right, 40), title="Result")
    if out.files:
        root.add(
            "MarkdownNote",
            (out.right, BOTTOM - out.result - 100),
            [out.files],
            at=(x_right, out.result + 100),
            title="Files and what they know",
            **DARK,
        )
    for node, output, socket in joined:
        root.link(node, machine, socket, output)
    root.link(machine, save, "images", "image")
    root.link(machine, preview, "images", out.shown)
    for title, nodes, colour in zip(
        out.said, (left, (machine, preview), (save,)), ("#5b94b8", PURPLE_FRAME, "#5b94b8"), strict=True
    ):
        if nodes:
            w.frame(title, nodes, colour)
