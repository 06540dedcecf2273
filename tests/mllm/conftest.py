"""Tiny model folders, made once a session: most tests only read them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from squeeze_core.mllm import load

from . import checkpoints

FAMILIES = {"internvl": checkpoints.internvl, "qwen": checkpoints.qwen}


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def folder(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="session")
def backbone(folder):
    return load(folder)


@pytest.fixture(scope="session")
def internvl_folder(tmp_path_factory):
    return checkpoints.internvl(tmp_path_factory.mktemp("internvl") / "model")


@pytest.fixture(scope="session")
def pictures():
    random = np.random.default_rng(0)
    sizes = [(90, 120), (230, 100)]
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
