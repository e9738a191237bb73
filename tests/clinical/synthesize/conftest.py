from pathlib import Path

import pytest

from cm2.clinical.synthesize import synthesize


@pytest.fixture(scope="session")
def mimic3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "mimic3"
    synthesize("mimic3", 80, folder)
    return folder


@pytest.fixture(scope="session")
def mimic4(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "mimic4"
    synthesize("mimic4", 60, folder)
    return folder
