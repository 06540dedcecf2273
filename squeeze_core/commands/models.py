"""The models that a command works with: the user's, or the toy world's when none is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..errors import SqueezeError
from .console import say

if TYPE_CHECKING:
    from ..adapter import Adapter, AdapterConfig
    from ..gate import Gate
    from ..pipeline import SqueezePipeline

SIDE = 1024  # of a picture, where nothing else is asked for


@dataclass(frozen=True)
class Models:
    """What `options` says of them. device: None is the GPU, or the CPU for the toy world.

    Raises `SqueezeError` when some are given and others are not, and for a dtype or a device that is not there.
    """

    flux: Path | None
    vae: Path | None
    mllm: Path | None
    adapter: Path | None
    clip: Path | None
    dtype: str
    mllm_dtype: str
    device: str | None
    offload: bool
    aligner: Path | None = None  # X2I's file in place of an adapter

    def __post_init__(self) -> None:
        if self.aligner is not None and self.adapter is not None:
            raise SqueezeError("Both --adapter and --aligner are given. Give one of them.")
        adapter = self.adapter if self.aligner is None else self.aligner
        needed = {"--flux": self.flux, "--mllm": self.mllm, "--adapter": adapter}
        missing = [name for name, path in needed.items() if path is None]
        if missing and (len(missing) < len(needed) or self.vae is not None or self.clip is not None):
            raise SqueezeError(
                f"Some models are given, but not {' and '.join(missing)}. Give --flux, --mllm and --adapter "
                "together (and --vae, unless --flux is a whole diffusers folder), or none for the toy world."
            )
        from ..flux.loading import torch_dtype
        from ..mllm import WeightDtype

        torch_dtype(self.dtype)  # type: ignore[arg-type]  # this is the check
        if self.mllm_dtype not in get_args(WeightDtype):
            accepted = ", ".join(get_args(WeightDtype))
            raise SqueezeError(f'The dtype of the MLLM is "{self.mllm_dtype}"; choose one of {accepted}.')
        if self.device is not None:
            checked_device(self.device)

    @property
    def toy(self) -> bool:
        return self.flux is None

    @property
    def side(self) -> int:
        """Of a picture in pixels, unless the user sets another. The toy's FLUX knows one size."""
        from .. import toyworld

        return toyworld.SIDE if self.toy else SIDE

    def adapter_config(self) -> AdapterConfig:
        """Read before gigabytes are loaded, to check against. Raises `SqueezeError`."""
        from .. import adapter as adapter_file
        from .. import toyworld

        if self.aligner is not None:
            return self._aligned().config
        return adapter_file.read_config(toyworld.build().adapter if self.adapter is None else self.adapter)

    def _aligned(self) -> Adapter:
        """The adapter that the aligner's file gives, or holds already."""
        from .. import adapter as adapter_file
        from .. import x2i

        assert self.aligner is not None and self.mllm is not None
        if x2i.is_aligner(self.aligner):
            return x2i.read(self.aligner, self.mllm)
        return adapter_file.load(self.aligner)

    def load(self, strength: float = 1.0) -> SqueezePipeline:
        """strength: of the adapter's LoRA. Says on stderr what is loaded. Raises `SqueezeError`."""
        from .. import toyworld
        from ..pipeline import SqueezePipeline

        adapter = self.adapter if self.aligner is None else self._aligned()
        if self.flux is None or self.mllm is None or adapter is None:
            toy = toyworld.load()
            say(f"Toy world: {toy.notice}.")
            return SqueezePipeline.from_toy_world(toy, strength=strength, device=self.device or "cpu")
        say("Loading the models ...")
        return SqueezePipeline.from_files(
            self.flux,
            self.vae,
            self.mllm,
            adapter,
            clip=self.clip,
            dtype=self.dtype,  # type: ignore[arg-type]  # checked by the loader
            mllm_dtype=self.mllm_dtype,
            strength=strength,
            device=self.device,
            offload=self.offload,
        )


def checked_device(name: str) -> str:
    """The same name. Raises `SqueezeError`, with what there is, when torch cannot compute there."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{number}" for number in range(gpus))]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            known = (device.index or 0) < gpus
        else:
            torch.zeros(1, device=device).cpu()
            known = True
    except (RuntimeError, AssertionError, ImportError):  # as torch says it, by kind of device
        known = False
    if not known:
        raise SqueezeError(f'There is no device "{name}" here. Choose one of {", ".join(there)}.')
    return name


def gate_of(own: Gate, tau_1: float | None, tau_2: float | None, late: str) -> Gate:
    """The adapter's gate, with what the user set instead."""
    from ..gate import Gate

    return Gate(
        own.tau_1 if tau_1 is None else tau_1,
        own.tau_2 if tau_2 is None else tau_2,
        late or own.late,  # type: ignore[arg-type]  # checked by the gate
    )
