"""What a run tells while it goes: a line a step in `log.jsonl`, tensorboard, pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..files import whole, write_text

if TYPE_CHECKING:
    from PIL.Image import Image


class RunLog:
    """Of one run folder; only the main process has one.

    start: the step gone on from; lines after it, of steps whose result was lost, are dropped.
    """

    def __init__(self, folder: Path, start: int, tensorboard: bool) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"
        _keep_up_to(self.path, start)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, closed by `close`
        self._board = _board(folder / "tensorboard", start) if tensorboard else None

    def step(self, line: Mapping[str, float]) -> None:
        """step, loss, lr, samples, seconds and whatever else is a number."""
        self._file.write(json.dumps(dict(line)) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if name not in ("step", "samples"):
                    self._board.add_scalar(name, value, int(line["step"]))

    def pictures(self, step: int, pictures: Mapping[str, Image]) -> None:
        """PNG files in samples/step_.../."""
        if not pictures:
            return
        folder = self.folder / "samples" / f"step_{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            with whole(folder / f"{name}.png") as temporary:
                picture.save(temporary)
            if self._board is not None:
                import numpy as np

                self._board.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU, or resident on the CPU; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _keep_up_to(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a line that a kill cut in two."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))


def _board(folder: Path, start: int) -> Any:
    """None when tensorboard is not installed: log.jsonl holds the same numbers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("squeeze: tensorboard is not installed; the numbers are in log.jsonl only", file=sys.stderr)
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
