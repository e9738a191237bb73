"""Data sets: whole, parted by patient, and nothing of a test row in what is learned."""

import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy import ndarray
from scipy.sparse import csr_array

from cm2.benchmark import jobs
from cm2.benchmark.methods import METHODS, Budget
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.studies import STUDIES, Given, Study
from cm2.benchmark.studies.mimic4 import Generated
from cm2.benchmark.studies.numbers import COMPONENTS
from cm2.clinical.prepare.errors import TableError
from cm2.core.errors import InputError
from cm2.samples.container import Samples

SIZES = {
    "digits": (1797, 10, 4),
    "eicu": (1292, 2, 7),
    "eicu-hourly": (1293, 2, 9),
    "eicu-regions": (1293, 2, 9),
    "mimic4-generated": (104, 2, 3),
    "p12": (7990, 2, 37),
    "physionet2012": (4000, 2, 11),
    "physionet2012-ab": (8000, 2, 11),
    "rosmap": (245, 2, 3),
    "rosmap-published": (351, 2, 3),
    **dict.fromkeys(("shared", "independent", "xor", "cross-rank"), (48000, 2, 4)),
}
"""Rows, classes and modalities; a world has 2,400 rows for each of 20 seeds."""


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Study]]:
    """Opens a data set, once; one that needs a folder skips where there are no data."""

    @cache
    def study(name: str) -> Study:
        kind = STUDIES[name]
        if not kind.folder:
            return kind()
        return kind(request.getfixturevalue("data_home") / kind.folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generated, "patients", 120)
        yield study


@pytest.mark.parametrize("name", STUDIES)
def test_splits_share_no_patient_and_blocks_fit_the_rows(name, opened):
    study = opened(name)
    rows, classes, modalities = SIZES[name]
    assert (len(study.y), len(study.labels), len(study.modalities)) == (rows, classes, modalities)
    assert set(study.y) == set(range(classes))
    first, again = study.split(0), study.split(0)
    assert not set(study.groups[first.train]) & set(study.groups[first.test])
    np.testing.assert_array_equal(first.test, again.test)
    assert np.array_equal(first.test, study.split(1).test) == name.endswith(("-ab", "-published"))
    blocks = study.blocks(first.train)
    assert list(blocks) == list(study.modalities)
    assert {len(block) for block in blocks.values()} == {rows}
    assert study.present().any(axis=1).all()
    # A ratio of zero means that splits are no parts of the same rows.
    ratio = np.mean([len(test) / len(train) for train, test in map(study.split, range(4))])
    fixed = study.test_to_train == 0
    assert fixed or study.test_to_train == pytest.approx(ratio, rel=0.1)


def test_the_five_folds_of_eicu_part_the_patients(opened):
    study = opened("eicu-hourly")
    tests = [study.split(seed).test for seed in range(5)]
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(len(study.y)))


def test_each_region_of_eicu_is_predicted_by_the_others(opened):
    study = opened("eicu-regions")
    region = study._stays["region"].to_numpy()
    assert study.regions == ("Midwest", "Northeast", "South", "West")
    for seed, name in enumerate(study.regions):
        train, test = study.split(seed)
        assert set(region[test]) == {name}
        assert (region[test] == name).sum() == (region == name).sum()
        assert name not in set(region[train])
    np.testing.assert_array_equal(study.split(4).test, study.split(0).test)


def test_a_sensor_of_p12_that_was_never_read_is_absent(opened):
    study = opened("p12")
    first, *sensors = study.modalities
    assert (first, len(sensors)) == ("static", 36)
    blocks, present = study.blocks(np.arange(0)), study.present()
    assert present[:, 0].all()
    assert present[:, 1:].any(axis=1).all()
    for name, there in zip(sensors, present[:, 1:].T, strict=True):
        first, last, least, greatest, mean, count = blocks[name][there].T
        assert (count >= 1).all()
        assert ((least <= mean + 1e-9) & (mean <= greatest + 1e-9)).all()
        for end in (first, last):
            assert ((end == least) | (end == greatest) | (count > 2)).all()
    assert len(study.split(0).test) == round(0.1 * len(study.y))


def test_what_pictures_and_documents_become_is_learned_on_training_rows(opened):
    study = deepcopy(opened("mimic4-generated"))
    train = study.split(0).train
    blocks = study.blocks(train)
    assert {name: block.shape[1] for name, block in blocks.items()}["cxr"] == COMPONENTS
    rest = np.setdiff1d(np.arange(len(study.y)), train)
    shown = study.present()[:, 1]
    pixels = study._made["cxr"].args[0]
    pixels[rest[shown[rest]]] = 255.0
    documents = study._made["report"].args[0]
    documents.iloc[rest] = documents.iloc[rest].where(documents.isna(), "effusion " * 9)
    again = study.blocks(train)
    np.testing.assert_array_equal(again["report"][train], blocks["report"][train])
    assert not np.array_equal(again["report"][rest], blocks["report"][rest], equal_nan=True)
    np.testing.assert_array_equal(again["cxr"][train], blocks["cxr"][train])
    assert not np.array_equal(again["cxr"][rest], blocks["cxr"][rest], equal_nan=True)
    np.testing.assert_array_equal(np.isnan(blocks["cxr"]).all(axis=1), ~shown)


def test_encoders_read_the_same_stays_without_the_folder(opened):
    study = pickle.loads(pickle.dumps(opened("mimic4-generated")))
    samples = study.samples
    assert samples.kinds == {"series": "series", "cxr": "image", "report": "text"}
    np.testing.assert_array_equal(samples.present, study.present())
    split = study.split(0)
    numbers = study.blocks(split.train)
    there = np.stack([~np.isnan(x).all(axis=1) for x in numbers.values()], axis=1)
    np.testing.assert_array_equal(samples.present, there)
    done = jobs.run(study, METHODS["MedFuse"], Budget(0, 1), (Pattern("random", 0.5, "both"),))
    kinds = {n: type(e).__name__ for n, e in done.method.networks_[0].encoders.items()}
    assert len(set(kinds.values())) == 3, kinds


def test_the_users_own_arrays_are_a_study():
    rng = np.random.default_rng(0)
    patient = np.arange(60) // 2
    X = {"labs": rng.normal(size=(60, 3)), "notes": rng.normal(size=(60, 2))}
    y = np.where(patient % 2, "ill", "well")
    for study in (Given(X, y, groups=patient), Given(Samples(X, y=y, groups=patient))):
        train, test = study.split(0)
        assert study.labels == ("ill", "well")
        assert not set(patient[train]) & set(patient[test])
        assert study.samples is None
    frame = pd.DataFrame({"age": [40, None, 70], "sex": [0, 1, None]}, dtype="Int64")
    sparse = csr_array(np.eye(3))
    blocks = Given({"frame": frame, "sparse": sparse}, [0, 1, 1]).blocks(np.arange(3))
    np.testing.assert_array_equal(blocks["frame"], [[40, 0], [np.nan, 1], [70, np.nan]])
    np.testing.assert_array_equal(blocks["sparse"], np.eye(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0, 1]}, "X has 3 samples, but y has 2"),
        ({"y": ["ill", None, "well"]}, "1 labels, first at row 1"),
        ({"groups": [1]}, r"groups must have shape \(3,\), got \(1,\)"),
        ({"X": {"labs": [[1.0], [np.nan], [2.0]]}}, r"no modality at all \(rows 1\)"),
        ({"X": {"labs": [[1.0], [np.inf], [2.0]]}}, "'labs' has infinite values"),
        ({"X": {"note": [3.5j] * 3}}, "modality 'note' must be two-dim"),
    ],
)
def test_data_that_cannot_be_a_study_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Given(**({"X": {"labs": np.eye(3)}, "y": [0, 1, 1]} | change))


def own(rows: int = 40) -> tuple[dict[str, Any], ndarray]:
    """Modalities of all kinds, and outcomes that pictures and notes show."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    noise = rng.integers(0, 9, (rows, 20, 24))
    pictures = (noise + 99 * y[:, None, None]).astype(np.uint8)
    words = np.array(["small", "left", "seen", "beside", "heart", "no", "pneumothorax"])
    said = ["Effusion. " if ill else "Clear. " for ill in y]
    X = {
        "labs": rng.normal(size=(rows, 3)),
        "vitals": [None if row % 3 else rng.normal(size=(row + 1, 2)) for row in range(rows)],
        "xray": [None if row % 4 == 0 else pictures[row] for row in range(rows)],
        "note": [text + " ".join(rng.choice(words, 4)).upper() for text in said],
        "events": [
            pd.DataFrame({"variable": "hr", "hour": [1.0, 2.0], "value": rng.normal(size=2)})
            for _ in range(rows)
        ],
    }
    return X, y


@pytest.mark.parametrize("method", ["LR + dropout", "DAFT"])
def test_the_users_own_modalities_of_any_kind_are_a_study(method):
    X, y = own()
    study = Given(X, y)
    kinds = ["table", "series", "image", "text", "events"]
    assert list(study.samples.kinds.values()) == kinds
    blocks = study.blocks(study.split(0).train)
    there = np.stack([~np.isnan(x).all(axis=1) for x in blocks.values()], axis=1)
    np.testing.assert_array_equal(there, study.present())
    np.testing.assert_array_equal(there, study.samples.present)
    seen = there[:, 2]
    for name, rows in (("xray", seen), ("note", slice(None))):
        columns = [x for x in blocks[name][rows].T if x.std() > 0]
        shows = max(abs(np.corrcoef(x, y[rows])[0, 1]) for x in columns)
        assert shows > 0.9, f"what {name} show"
    pattern = Pattern("random", 0.3, "both")
    done = jobs.run(study, METHODS[method], Budget(0, 1), (pattern,))
    assert np.isfinite(done.probability[pattern]).all()


def test_test_rows_teach_nothing():
    X, y = own()
    before = Given(X, y)
    train, test = before.split(0)
    changed = {name: list(values) for name, values in X.items()}
    for row in test:
        changed["events"][row] = changed["events"][row].assign(variable="other")
        changed["note"][row] = "entirely different"
        changed["xray"][row] = None if X["xray"][row] is None else 255 - X["xray"][row]
    after = Given(changed, y).blocks(train)
    for name, block in before.blocks(train).items():
        np.testing.assert_array_equal(after[name][train], block[train], err_msg=name)
        assert after[name].shape == block.shape


@pytest.mark.parametrize("name", ["vitals", "xray", "note", "events"])
def test_what_no_training_row_has_is_no_number_of_any(name):
    X, y = own()
    train, test = Given(X, y).split(0)
    X[name] = [None if row in set(train) else one for row, one in enumerate(X[name])]
    X[name][test[0]] = own()[0][name][3]
    pattern = Pattern("random", 0.3)
    done = jobs.run(Given(X, y), METHODS["concat. LR"], Budget(0, 1), (pattern,))
    assert np.isfinite(done.probability[pattern]).all()


def test_few_pictures_have_few_components_and_equal_texts_say_only_who_has_one(caplog):
    X, y = own(8)
    X["note"] = ["nothing to be seen"] * 7 + [None]
    few = np.array([1, 2, 3])
    blocks = Given(X, y).blocks(few)
    assert blocks["xray"].shape == (8, 2)
    np.testing.assert_array_equal(blocks["note"][:, 0], [0.0] * 7 + [np.nan])
    assert "no term of 'note'" in caplog.text


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="rosmap needs a folder"):
        STUDIES["rosmap"]()
    with pytest.raises(InputError, match=r"has no file labels_tr\.csv"):
        STUDIES["rosmap"](tmp_path)
    with pytest.raises(TableError, match="no set-a"):
        STUDIES["physionet2012"](tmp_path)
    with pytest.raises(ValueError, match="a world has seeds 0 to 19"):
        STUDIES["xor"]().split(20)
