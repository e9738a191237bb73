"""Saved models: the same predictions, no training rows, no code that runs."""

import json
import pickle
import re
import zipfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LogisticRegression

from cm2 import CM2Classifier
from cm2.core import persistence

pytestmark = pytest.mark.usefixtures("small_models")

FAST = {"embedding_dim": 4, "n_components": 2, "max_epochs": 2, "n_networks": 2}
MARKER = 77.123456789


def samples(rows: int = 90, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    X = {name: rng.normal(size=(rows, 3)) + y[:, None] for name in ("labs", "notes")}
    X["notes"][::3] = np.nan
    X["labs"][1, 1] = np.nan
    return X, np.array(["dead", "alive"])[y]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small saved model, and what it was trained on holds a marker."""
    X, y = samples()
    X["labs"][7] = MARKER
    model = CM2Classifier(head="experts", random_state=0).fit(X, y)
    return model.save(tmp_path_factory.mktemp("saved") / "model.cm2")


def test_a_file_is_deflated_and_one_that_is_not_can_be_read(saved: Path, tmp_path: Path) -> None:
    """Trees are alike, so that their descriptions and numbers deflate to far less than a half."""
    with zipfile.ZipFile(saved) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert saved.stat().st_size < sum(map(len, contents.values())) / 2
    stored = tmp_path / "stored.cm2"
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    assert stored.stat().st_size > 2 * saved.stat().st_size
    X, _ = samples(40, seed=1)
    before, after = (CM2Classifier.load(path).predict_proba(X) for path in (stored, saved))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("head", ["experts", "joint", "fusion", "pooled"])
def test_a_loaded_model_predicts_the_same_to_the_bit(head: str, tmp_path: Path) -> None:
    X, y = samples()
    model = CM2Classifier(head=head, random_state=0, **FAST).fit(X, y)
    path = model.save(tmp_path / "deep" / "model.cm2")
    assert [p.name for p in path.parent.iterdir()] == ["model.cm2"]
    loaded = CM2Classifier.load(path)
    test, _ = samples(40, seed=1)
    np.testing.assert_array_equal(loaded.predict_proba(test), model.predict_proba(test))
    np.testing.assert_array_equal(loaded.predict(test), model.predict(test))
    if head != "experts":
        np.testing.assert_array_equal(loaded.embed(test), model.embed(test))
    if head in ("fusion", "pooled"):
        np.testing.assert_array_equal(loaded.impute(test), model.impute(test))
    assert loaded.get_params() == model.get_params()


@pytest.mark.parametrize("copula", ["gumbel", "frank", "independence"])
def test_every_family_can_be_saved(copula: str, tmp_path: Path) -> None:
    X, y = samples(60)
    model = CM2Classifier(copula, head="joint", random_state=0).fit(X, y)
    loaded = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_groups_class_weights_and_multilabel_can_be_saved(tmp_path: Path) -> None:
    X, y = samples(60)
    array = np.hstack(list(X.values()))
    labels = np.stack([y == "dead", np.arange(60) % 2 == 0], axis=1).astype(int)
    model = CM2Classifier(
        head="joint", modalities={"labs": slice(0, 3), "notes": [3, 4, 5]}, class_weight="balanced"
    ).fit(array, labels)
    loaded = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(loaded.predict_proba(array), model.predict_proba(array))
    assert loaded.modalities == model.modalities


COLUMNS: dict[str, Any] = {
    "ranges": {"labs": range(3), "notes": range(3, 6)},
    "tuples": {"labs": (0, 1, 2), "notes": (3, 4, 5)},
    "arrays": {"labs": np.arange(3), "notes": np.arange(6) > 2},
    "numpy numbers": {"labs": list(np.arange(3)), "notes": slice(np.int64(3), None)},
    "indexes": {"labs": pd.Index(["a", "b", "c"]), "notes": pd.Series(["d", "e", "f"])},
    "a range of an index": {"labs": pd.RangeIndex(3), "notes": [3, 4, 5]},
    "a view": MappingProxyType({"labs": [0, 1, 2], "notes": [3, 4, 5]}),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_all_ways_to_name_columns_can_be_saved(kind: str, tmp_path: Path) -> None:
    X, y = samples(60)
    frame = pd.DataFrame(np.hstack(list(X.values())), columns=list("abcdef"))
    array = frame if kind == "indexes" else frame.to_numpy()
    model = CM2Classifier(head="joint", modalities=COLUMNS[kind], run_dir=tmp_path / "log")
    model.fit(array, y)
    loaded = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(loaded.predict_proba(array), model.predict_proba(array))
    assert loaded.run_dir == str(tmp_path / "log")
    assert model.modalities is COLUMNS[kind], "saving leaves the model as it is"
    loaded.fit(array, y)


def test_a_path_in_a_network_can_be_saved(tmp_path: Path) -> None:
    X, y = samples(60)
    model = CM2Classifier(head="fusion", run_dir=tmp_path / "log", **FAST).fit(X, y)
    loaded = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "change",
    [
        {"modalities": {("labs", 1): [0, 1, 2], "notes": [3, 4, 5]}},
        {"class_weight": {"dead": 1j}},
        {"class_weight": {"dead": frozenset()}},
        {"verbose": object()},
    ],
)
def test_what_would_not_load_is_refused_by_its_name(
    change: dict[str, Any], saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.cm2"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"the argument '{next(iter(change))}' cannot be saved"):
        CM2Classifier.load(saved).set_params(**change).save(path)
    assert path.read_bytes() == b"old"


def test_saving_again_replaces_the_file(tmp_path: Path) -> None:
    X, y = samples(60)
    model = CM2Classifier(head="joint", random_state=0).fit(X, y)
    path = tmp_path / "model.cm2"
    path.write_bytes(b"old")
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.cm2"]
    np.testing.assert_array_equal(CM2Classifier.load(path).classes_, ["alive", "dead"])


@pytest.mark.parametrize("head", ["experts", "joint", "fusion"])
def test_the_file_holds_no_training_row(head: str, tmp_path: Path) -> None:
    X, y = samples()
    X["labs"][7] = MARKER
    path = CM2Classifier(head=head, random_state=0, **FAST).fit(X, y).save(tmp_path / "model.cm2")
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for dtype in (np.float64, np.float32):
        assert np.array([MARKER], dtype).tobytes() not in content
        assert np.asarray(X["labs"][3], dtype).tobytes() not in content
    assert b"77.1234" not in content


def test_an_unfitted_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        CM2Classifier().save(tmp_path / "model.cm2")
    assert not list(tmp_path.iterdir())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved estimator at"):
        CM2Classifier.load(tmp_path / "model.cm2")


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.9])
def test_damage_is_noticed(where: float, saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    start = int(where * len(content))
    content[start : start + 64] = bytes(64)
    path = tmp_path / "model.cm2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a saved cm2 estimator, or it is damaged"):
        CM2Classifier.load(path)


def test_half_a_file_is_noticed(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.cm2"
    path.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    with pytest.raises(ValueError, match="not a saved cm2 estimator, or it is damaged"):
        CM2Classifier.load(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def rewritten(saved: Path, path: Path, **changes: bytes | None) -> Path:
    """A copy of a saved model with other members."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return path


def test_a_pickle_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    poison = pickle.dumps(Payload(trace))
    bare = tmp_path / "bare.cm2"
    bare.write_bytes(poison)
    with pytest.raises(ValueError, match="not a saved cm2 estimator"):
        CM2Classifier.load(bare)
    with zipfile.ZipFile(saved) as archive:
        arrays = {name: poison for name in archive.namelist() if name.endswith(".npy")}
    assert arrays
    schema = json.dumps(
        {"__module__": "builtins", "__class__": "object", "__loader__": "PickleNode"}
    )
    for number, changes in enumerate(
        [arrays, {"schema.json": poison}, {"schema.json": schema.encode()}]
    ):
        path = rewritten(saved, tmp_path / f"{number}.cm2", **changes)
        with pytest.raises(ValueError, match="not a saved cm2 estimator, or it is damaged"):
            CM2Classifier.load(path)
    assert not trace.exists()
    pickle.loads(poison)
    assert trace.exists()


class Foreign(LogisticRegression):
    """A type that cm2 does not write."""


def test_foreign_types_are_refused_by_name(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.cm2"
    model = CM2Classifier.load(saved)
    model.head_ = Foreign()
    model.save(path)
    with pytest.raises(
        ValueError, match=re.escape("holds types that cm2 does not write")
    ) as caught:
        CM2Classifier.load(path)
    assert Foreign.__qualname__ in str(caught.value)


def test_functions_are_refused(saved: Path, tmp_path: Path) -> None:
    model = CM2Classifier.load(saved)
    model.head_ = np.testing.assert_equal
    with pytest.raises(ValueError, match="does not write: numpy"):
        CM2Classifier.load(model.save(tmp_path / "model.cm2"))


def test_another_estimator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.cm2"
    skops.io.dump(LogisticRegression(), path)
    with pytest.raises(ValueError, match="not a saved cm2 estimator"):
        CM2Classifier.load(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cm2.json", '{"format": 6, "cm2": "0.1"}')
    with pytest.raises(ValueError, match="holds a LogisticRegression, not a CM2Classifier"):
        CM2Classifier.load(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"format": 1, "cm2": "0.1"}', "has format 1, written by cm2 0.1; this version reads 6"),
        (b"[1]", "not a saved cm2 estimator"),
        (b"{", "not a saved cm2 estimator"),
        (None, "not a saved cm2 estimator"),
    ],
)
def test_other_formats_are_refused(
    header: bytes | None, message: str, saved: Path, tmp_path: Path
) -> None:
    path = rewritten(saved, tmp_path / "model.cm2", **{"cm2.json": header})
    with pytest.raises(ValueError, match=message):
        CM2Classifier.load(path)


def test_facts_say_what_wrote_the_file_and_what_is_added(saved: Path, tmp_path: Path) -> None:
    """Also where the versions that wrote it may be why it cannot be read."""
    model = CM2Classifier.load(saved)
    found = persistence.facts(model.save(tmp_path / "model.cm2", facts={"site": "A", "format": 0}))
    assert found == persistence.facts(saved) | {"site": "A"}
    assert found["versions"]["scikit-learn"] == sklearn.__version__
    found["versions"]["scikit-learn"] = "0.1"
    changed = {"cm2.json": json.dumps(found).encode(), "schema.json": b"{}"}
    other = rewritten(saved, tmp_path / "other.cm2", **changed)
    with pytest.raises(ValueError, match=r"damaged; it was written with scikit-learn 0.1 \(here"):
        CM2Classifier.load(other)


def test_the_file_has_no_predictions_of_training_rows(tmp_path: Path) -> None:
    """Out-of-fold predictions and out-of-bag votes are one row a patient."""
    rng = np.random.default_rng(0)
    y = np.arange(137) % 2
    X = {name: rng.normal(size=(137, 3)) + y[:, None] for name in ("a", "b")}
    model = CM2Classifier(n_networks=2, max_epochs=2, random_state=0).fit(X, y)
    loaded = CM2Classifier.load(model.save(tmp_path / "model"))
    assert not hasattr(loaded.head_, "log_proba_")

    def lengths(thing: Any, depth: int = 0) -> set[int]:
        if isinstance(thing, np.ndarray):
            return set(thing.shape)
        if isinstance(thing, dict):
            parts = list(thing.values())
        elif isinstance(thing, list | tuple):
            parts = list(thing)
        else:
            parts = list(getattr(thing, "__dict__", {}).values())
        return set().union(*(lengths(part, depth + 1) for part in parts)) if depth < 12 else set()

    assert 137 not in lengths(loaded)
    assert 137 in lengths(model)
