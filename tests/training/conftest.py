import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import tiny


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of one thread come out the same each time, and tests share few cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return tiny.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def uno(tmp_path_factory) -> Path:
    return tiny.write_uno(tmp_path_factory.mktemp("data") / "uno")


@pytest.fixture(scope="session")
def program():
    """Run a program of this folder, or a module, in a process of its own; the process when wait is false."""

    def run(*arguments: str, wait: bool = True, processes: int = 1):
        root = Path(__file__).parents[2]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
        options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if not wait:
            return subprocess.Popen(command, **options)
        return subprocess.run(command, timeout=300, **options)

    return run
