"""A prepared folder for the tests of this folder, and a copy that a test may change."""

import shutil
from pathlib import Path

import pytest

from prepared_folder import make_folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only, but for the tokens that readers keep in it."""
    return make_folder(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture
def root(shared: Path, tmp_path: Path) -> Path:
    """A copy to be changed or broken, in which no text has been read yet."""
    unread = shutil.ignore_patterns("tokens")
    return Path(shutil.copytree(shared, tmp_path / "copy", ignore=unread))
