import pytest

from squeeze_core import toyworld


@pytest.fixture(scope="session")
def toy_paths(tmp_path_factory):
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world")


@pytest.fixture(scope="session")
def toy(toy_paths):
    return toyworld.load(toy_paths.folder)
