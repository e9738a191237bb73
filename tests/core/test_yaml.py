"""YAML as users write it."""

from pathlib import Path

import pytest
import yaml

from cm2.clinical.prepare.folder import refuse
from cm2.core.errors import InputError
from cm2.core.files import check_writable, open_folder
from cm2.core.yaml import read
from cm2.experiments import config, folder, sweep
from cm2.experiments.predictions import Predictions


def test_a_key_given_twice_is_refused_and_named() -> None:
    assert read("a: &x {b: 1}\nc: {<<: *x, b: 2}") == {"a": {"b": 1}, "c": {"b": 2}}
    with pytest.raises(yaml.YAMLError, match="key 'b' is there twice"):
        read("a: {b: 1, b: 2}")


def test_experiments_and_variants_refuse_keys_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: {seed: 1}\na: {seed: 2}\n")
    for reader in (config.load, sweep.read_variants):
        with pytest.raises(InputError, match=r"x\.yaml.*(\n.*)*key 'a' is there twice"):
            reader(path)


@pytest.mark.parametrize("text", ["2024-02-30", "0x_", "!!int x", "{a", "!!python/name:os"])
def test_what_is_no_value_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("model: {kind: cm2}\n")
    with pytest.raises(yaml.YAMLError):
        read(text)
    with pytest.raises(InputError, match="is refused: "):
        config.load(path, [f"seed={text}"])
    path.write_text(f"seed: {text}\n")
    with pytest.raises(InputError, match=r"x\.yaml"):
        config.load(path)


def test_an_override_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("model: {kind: cm2}\n")
    with pytest.raises(InputError, match="refused: the key 'rank' is there twice"):
        config.load(path, ["model.joint={rank: 1, rank: 2}"])
    with pytest.raises(InputError, match=r"model\.joint=\{rank.*is refused: "):
        config.load(path, ["model.joint={rank"])


def test_a_folder_or_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder, but a YAML file"):
        config.load(tmp_path)
    (tmp_path / "environment.json").write_text('{"data": ')
    with pytest.raises(InputError, match=r"environment\.json: damaged"):
        folder.facts(tmp_path)
    path = tmp_path / "test.npz"
    for content in (b"", b"PK\x03\x04 cut", b"text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"test\.npz: damaged"):
            Predictions.load(path)


def test_a_place_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = tmp_path / "file" / "out"
    for check in (
        check_writable,
        lambda out: open_folder(out, lambda _: True, "run"),
        lambda out: refuse(out, tmp_path / "raw"),
    ):
        with pytest.raises(InputError, match="cannot be written"):
            check(bad)
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_merged_mapping_may_be_merged_again() -> None:
    text = "x: &x {k: 0, j: 2}\ndefs:\n  a: &a {<<: *x, k: 1}\nb: {<<: *a}\n"
    assert read(text) == yaml.safe_load(text)
    with pytest.raises(yaml.YAMLError, match="'k' is there twice"):
        read("a:\n  - {k: 1, k: 2}\n")
