"""Tiny random models and a tiny DreamBench, made once a session: tests only read them."""

import pytest

from squeeze_core.evaluation import benchmarks
from squeeze_core.vision.backbones import load_clip, load_dino
from squeeze_core.vision.detector import load_detector
from squeeze_core.vision.orientation import load_orientation

from . import models as tiny


@pytest.fixture(scope="session")
def model_root(tmp_path_factory):
    """Named as `hf download` would, so that commands find them by themselves."""
    root = tmp_path_factory.mktemp("models")
    tiny.dino(root / "dino-vits16")
    tiny.clip(root / "clip-vit-base-patch32")
    tiny.grounding_dino(root / "grounding-dino-base")
    tiny.orient_anything(root / "Orient-Anything")
    return root


@pytest.fixture(scope="session")
def dino(model_root):
    return load_dino(model_root / "dino-vits16")


@pytest.fixture(scope="session")
def clip(model_root):
    return load_clip(model_root / "clip-vit-base-patch32")


@pytest.fixture(scope="session")
def detector(model_root):
    return load_detector(model_root / "grounding-dino-base", threshold=0.01)


@pytest.fixture(scope="session")
def orientation(model_root):
    return load_orientation(model_root / "Orient-Anything")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return tiny.dreambench(tmp_path_factory.mktemp("dreambooth"))


@pytest.fixture(scope="session")
def benchmark_data(dataset):
    return benchmarks.read("dreambench", dataset)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, dataset):
    """Random pictures for every case, with two seeds."""
    return tiny.run(tmp_path_factory.mktemp("run"), dataset)
