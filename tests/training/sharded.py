"""Run by two processes: `sharding.shard` itself, and what each of them holds then."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.distributed.tensor import DTensor

from squeeze_core.training.fsdp import shard
from squeeze_core.training.loop import leave_processes
from tests.training.regression import Regression


def main() -> None:
    task = Regression()
    for parameter in task.module.first.parameters():  # frozen and trained weights live side by side
        parameter.requires_grad_(False)
    whole = [p.detach().clone() for p in task.module.parameters()]
    loss, _ = task.loss(task.batch(range(4)))
    shard(task.module, task.shard_units(), torch.device("cpu"), "fp32")
    assert all(isinstance(p, DTensor) for p in task.module.parameters())
    assert sum(p.to_local().numel() for p in task.module.parameters()) * 2 == sum(p.numel() for p in whole)
    again, _ = task.loss(task.batch(range(4)))
    assert torch.equal(again, loss), (again, loss)
    again.backward()
    assert all((p.grad is not None) == p.requires_grad for p in task.module.parameters())
    print("half")


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    main()  # what is sharded is gone before its process group
    leave_processes()
