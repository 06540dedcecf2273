import pytest

from squeeze_core import toyworld

UNTRAINED = 1  # a seed of random weights, made so that every path answers visibly; seed 0 is trained


@pytest.fixture(scope="session")
def toy_paths(tmp_path_factory):
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world", UNTRAINED)


@pytest.fixture(scope="session")
def toy(toy_paths):
    return toyworld.load(toy_paths.folder, UNTRAINED)
