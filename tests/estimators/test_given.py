"""What users give in other forms means the same, and what contradicts itself is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.model_selection import cross_val_score, train_test_split

from cm2 import CM2Classifier
from cm2.samples.container import Samples

ROWS = 90
rng = np.random.default_rng(0)
Y = rng.integers(2, size=ROWS)
LABS = pd.DataFrame(
    {"hr": rng.normal(size=ROWS) + 2 * Y, "bp": rng.normal(size=ROWS)},
    index=[f"s{k}" for k in range(ROWS)],
)
NOTES = pd.DataFrame({"age": rng.normal(size=ROWS) + Y}, index=LABS.index)
X = {"labs": LABS, "notes": NOTES}
ORDER = rng.permutation(ROWS)


def joint() -> CM2Classifier:
    return CM2Classifier(head="joint", random_state=0)


def test_what_a_mask_hides_is_missing() -> None:
    gap = np.arange(ROWS) % 3 == 0
    values = LABS.to_numpy()
    holes = np.where(gap[:, None], np.nan, values)
    masked = np.ma.masked_array(np.where(gap[:, None], -999.0, values), mask=holes != holes)
    by_nan, by_mask = (
        joint().fit({"labs": one, "notes": NOTES.to_numpy()}, Y) for one in (holes, masked)
    )
    asked = {"labs": masked, "notes": NOTES.to_numpy()}
    np.testing.assert_array_equal(
        by_mask.predict_proba(asked), by_nan.predict_proba({**asked, "labs": holes})
    )
    steps = np.ma.masked_array(np.ones((3, 2)), mask=True)
    assert not Samples({"s": [steps, steps.data]}).present[0, 0]
    whole = np.ma.masked_array(values)
    assert Samples({"labs": whole}).present.all()


@pytest.mark.parametrize("what", ["y", "groups", "sample_weight"])
def test_what_a_mask_hides_of_labels_is_refused(what: str) -> None:
    hidden = np.ma.masked_array(np.ones(ROWS, int), mask=np.arange(ROWS) == 4)
    hidden[:20] = 0
    options: dict[str, Any] = {"y": Y, what: hidden}
    hidden[4] = np.ma.masked
    with pytest.raises(ValueError, match=r"NaN|missing|finite"):
        joint().fit(X, **options)


def test_columns_of_other_libraries_have_names() -> None:
    plain = {name: one.reset_index(drop=True) for name, one in X.items()}
    model = joint().fit(plain, Y)
    table = pa.Table.from_pandas(plain["labs"], preserve_index=False)
    # polars frames have the same method, and polars is no dependency
    likewise = SimpleNamespace(to_pandas=lambda: plain["labs"])
    wanted = model.predict_proba(plain)
    for one in (table, likewise):
        np.testing.assert_array_equal(model.predict_proba({**plain, "labs": one}), wanted)
    with pytest.raises(ValueError, match="'bp' stands where the fitted model expects 'hr'"):
        model.predict_proba({**plain, "labs": table.select(["bp", "hr"])})
    named = CM2Classifier(head="joint", modalities={"m": ["hr"]}, random_state=0)
    assert named.fit(table, Y).predict_proba(table).shape == (ROWS, 2)


@pytest.mark.parametrize("what", ["y", "groups", "sample_weight", "present"])
def test_an_index_in_another_order_is_refused(what: str) -> None:
    say: dict[str, Any] = {
        "y": pd.Series(Y, LABS.index),
        "groups": pd.Series(np.arange(ROWS), LABS.index),
        "sample_weight": pd.Series(np.ones(ROWS), LABS.index),
        "present": pd.DataFrame({"notes": np.arange(ROWS) % 2 == 0}, LABS.index),
    }
    given = {"y": Y, what: say[what].iloc[ORDER]}
    with pytest.raises(ValueError, match=f"the index of {what}.* another order"):
        joint().fit(X, **given)
    wanted = joint().fit(X, **{"y": Y, what: say[what]}).predict_proba(X)
    # Rows that are only counted, as after reset_index, are in the order of X.
    counted = say[what].reset_index(drop=True)
    found = joint().fit(X, **{"y": Y, what: counted}).predict_proba(X)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("which", ["X", "y", "both"])
def test_rows_of_another_index_can_be_taken(which: str) -> None:
    """As where one of two was counted anew: what fits can be parted and cross-validated too."""
    frame, y = LABS.iloc[ORDER], pd.Series(Y, LABS.index).iloc[ORDER]
    if which in ("X", "both"):
        frame = frame.reset_index(drop=True)
    if which in ("y", "both"):
        y = y.reset_index(drop=True)
    if which != "both":
        assert not frame.index.equals(y.index)
    model = CM2Classifier(head="joint", modalities={"m": ["hr"], "n": ["bp"]}, random_state=0)
    assert len(cross_val_score(model, frame, y)) == 5
    train, test, of_train, _ = train_test_split(frame, y, random_state=0)
    assert model.fit(train, of_train).predict_proba(test).shape == (len(test), 2)
    S = Samples({"labs": frame, "notes": NOTES.to_numpy()}, y=y)
    assert len(cross_val_score(joint(), S, y)) == 5


def test_an_index_in_another_order_is_refused_of_samples_and_texts() -> None:
    texts = pd.Series(["cough"] * ROWS, LABS.index)
    assert len(Samples({**X, "texts": texts})) == ROWS
    for options in ({"y": pd.Series(Y, LABS.index)}, {"ids": pd.Series(ORDER, LABS.index)}):
        [(name, one)] = options.items()
        assert Samples(X, **options)[3:].index.equals(LABS.index[3:])
        with pytest.raises(ValueError, match=f"the index of {name} has"):
            Samples(X, **{name: one.iloc[ORDER]})
    with pytest.raises(ValueError, match="the index of modality 'texts' has"):
        Samples({**X, "texts": texts.iloc[ORDER]})


@pytest.mark.parametrize("last", [np.nan, None, pd.NA, 3])
def test_a_list_of_texts_keeps_what_is_no_text(last: Any) -> None:
    said = ["dead", "alive"] * (ROWS // 2)
    said[-1] = last
    for options in ({"y": said}, {"y": Y, "groups": said}):
        with pytest.raises(ValueError, match=r"NaN|missing|texts beside other values"):
            joint().fit(X, **options)


@pytest.mark.parametrize("values", [(1, 2), (0, 2), (-1, 1), (3, 8)])
def test_several_labels_are_zeros_and_ones(values: tuple[int, int]) -> None:
    both = np.stack([Y, 1 - Y], axis=1)
    with pytest.raises(ValueError, match="zeros and ones"):
        joint().fit(X, np.asarray(values)[both])


def test_no_value_of_a_label_or_weight_is_shown() -> None:
    with pytest.raises(ValueError, match="should be numbers") as caught:
        joint().fit(X, Y, sample_weight=["J. Smith"] * ROWS)
    assert "Smith" not in str(caught.value)
    assert caught.value.__suppress_context__
    told = np.where(Y > 0, "dead", "alive")
    held = Samples(X, y=np.where(np.arange(ROWS) == 5, "J. Smith", told))
    with pytest.raises(ValueError, match=r"1 labels .* first at row 5") as caught:
        joint().fit(X, told, validation=held)
    assert "Smith" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_networks": 1.5}, "n_networks must be a whole number, got 1.5"),
        ({"patience": float("nan")}, "patience must be a whole number"),
        ({"embedding_dim": "3"}, "embedding_dim must be a whole number, got '3'"),
        ({"presence": "no"}, "presence must be True or False, got 'no'"),
    ],
)
def test_arguments_of_another_type_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CM2Classifier().set_params(**options).fit(X, Y)


@pytest.mark.parametrize("mask", [True, [True] * 5, np.ones(ROWS)])
def test_a_mask_of_one_modality_is_checked_by_name(mask: Any) -> None:
    with pytest.raises(ValueError, match="present of modality 'notes' must be boolean"):
        joint().fit(X, Y, present={"notes": mask})


@pytest.mark.parametrize("draws", [0, -1])
def test_draws_are_counted(draws: int) -> None:
    model = CM2Classifier(head="fusion", n_networks=1, max_epochs=1, random_state=0).fit(X, Y)
    for ask in (model.impute, model.predict_proba):
        with pytest.raises(ValueError, match="draws must be"):
            ask(X, draws=draws)
