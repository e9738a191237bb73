"""Versions: of what is installed, and what is said where they differ."""

import importlib.metadata

import pytest

from cm2.core.versions import different, versions


def test_an_extra_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.metadata.version

    def without(name: str) -> str:
        if name == "transformers":
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    whole = versions()
    monkeypatch.setattr(importlib.metadata, "version", without)
    assert versions() == {name: one for name, one in whole.items() if name != "transformers"}
    assert whole["torch"] == find("torch")


def test_other_versions_are_named() -> None:
    written = versions() | {"scikit-learn": "0.1", "gone": "2"}
    here = written["torch"], versions()["scikit-learn"]
    assert different(written) == (
        f"; it was written with scikit-learn 0.1 (here {here[1]}), gone 2 (here none)"
    )
    assert different({}) == ""
