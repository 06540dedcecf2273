"""Which attention kernels may run while gradients flow: named by the trainer, not chosen by PyTorch.

By itself PyTorch takes cuDNN's on Hopper GPUs, whose backward pass dies of an illegal memory access at FLUX's
sizes, or gives NaN where there is a mask (torch 2.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

from torch.nn.attention import SDPBackend, sdpa_kernel

AttentionKernel = Literal["flash", "efficient", "math"]
SAFE: tuple[AttentionKernel, ...] = ("flash", "efficient", "math")

_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def allowed(kernels: Sequence[AttentionKernel]) -> AbstractContextManager[None]:
    """Only these kernels inside. Put it around the backward pass too: checkpointed blocks run again there.

    The choice belongs to the process, so it also holds in the threads in which autograd works.
    """
    return sdpa_kernel([_BACKENDS[kernel] for kernel in kernels])
