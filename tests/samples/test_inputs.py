"""From tables to blocks: what counts as missing, what is learned, and what is refused."""

import re
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from cm2 import Samples
from cm2.samples import tables as reading
from cm2.samples.inputs import Reader
from cm2.samples.scaling import RobustScaler

ROWS = 12


def tables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"ehr": rng.normal(3, 2, (ROWS, 3)), "cxr": rng.normal(-1, 5, (ROWS, 2))}


def test_present_rows_are_standardised_and_absent_rows_are_zero() -> None:
    X = tables()
    X["cxr"][::2] = np.nan
    blocks = Reader().fit_blocks(X)
    np.testing.assert_array_equal(blocks.present[:, 0], True)
    np.testing.assert_array_equal(blocks.present[:, 1], np.arange(ROWS) % 2 == 1)
    odd = X["cxr"][1::2]
    expected = RobustScaler().fit_transform(odd)
    np.testing.assert_allclose(blocks.values["cxr"][1::2], expected, rtol=1e-5)
    assert (blocks.values["cxr"][::2] == 0).all()


def test_gaps_get_the_centre_and_a_flag_and_leave_the_scale_alone() -> None:
    X = tables()
    X["ehr"][0, 1] = np.nan
    reader = Reader()
    blocks = reader.fit_blocks(X)
    assert blocks.present.all()
    assert blocks.values["ehr"].shape == (ROWS, 4)
    expected = RobustScaler().fit_transform(X["ehr"])
    expected[:, 1] = np.append(0.0, RobustScaler().fit_transform(X["ehr"][1:, 1:2]))
    np.testing.assert_allclose(blocks.values["ehr"][:, :3], expected, rtol=1e-4, atol=1e-6)
    flag = blocks.values["ehr"][:, 3]
    assert flag[0] > 0
    assert (flag[1:] == flag[1]).all()
    assert flag[1] < 0
    later = {k: v[:1].copy() for k, v in tables().items()}
    later["ehr"][0, 1] = np.nan
    np.testing.assert_array_equal(reader.blocks(later).values["ehr"], blocks.values["ehr"][:1])


def test_columns_missing_in_the_same_rows_share_one_flag() -> None:
    X = tables()
    X["ehr"] = np.hstack([X["ehr"], X["ehr"][:, :1] + 1.0])
    X["ehr"][:3, [0, 3]] = np.nan  # a panel
    X["ehr"][:4, 2] = np.nan
    reader = Reader()
    blocks = reader.fit_blocks(X)
    assert blocks.values["ehr"].shape == (ROWS, 6)
    panel, other = blocks.values["ehr"][:, 4:].T > 0
    np.testing.assert_array_equal(panel, np.arange(ROWS) < 3)
    np.testing.assert_array_equal(other, np.arange(ROWS) < 4)


def test_a_column_that_is_nan_in_training_is_accepted() -> None:
    X = tables()
    X["ehr"][:, 2] = np.nan
    reader = Reader()
    assert np.isfinite(reader.fit_blocks(X).values["ehr"]).all()
    assert np.isfinite(reader.blocks(tables()).values["ehr"]).all()


@pytest.mark.parametrize("kind", ["matrix", "dict", "frame of series"])
def test_masks_count_beside_nan_rows(kind: str) -> None:
    X = tables()
    X["cxr"][0] = np.nan
    here = np.ones((ROWS, 2), dtype=bool)
    here[3, 0] = here[4, 1] = False
    mask: Any = here
    if kind == "dict":
        mask = {"cxr": here[:, 1], "ehr": here[:, 0]}
    if kind == "frame of series":
        mask = {"cxr": pd.Series(here[:, 1]), "ehr": pd.Series(here[:, 0])}
    found = Reader().fit_blocks(X, mask).present
    expected = here.copy()
    expected[0, 1] = False
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("names", [["cxr", "ehr"], ["cxr"]])
def test_an_array_of_masks_is_in_the_order_of_training_or_refused(names: list[str]) -> None:
    reader = Reader().fit(tables())
    X = {name: tables()[name] for name in names}
    here = np.arange(ROWS) > 2
    message = re.escape(f"X has the modalities {', '.join(names)}, but the fitted model ehr, cxr")
    with pytest.raises(ValueError, match=message):
        reader.blocks(X, np.stack([np.ones(ROWS, bool), here], axis=1))
    with pytest.raises(ValueError, match=message):
        reader.blocks(Samples(X), np.stack([here, np.ones(ROWS, bool)], axis=1))
    for mask in ({"cxr": here}, pd.DataFrame({"cxr": here}), pa.table({"cxr": here})):
        found = reader.blocks(X, mask).present
        np.testing.assert_array_equal(found, np.stack([["ehr" in names] * ROWS, here], axis=1))


def test_a_dict_mask_may_name_some_modalities_only() -> None:
    here = np.arange(ROWS) > 2
    found = Reader().fit_blocks(tables(), {"cxr": here}).present
    np.testing.assert_array_equal(found, np.stack([np.ones(ROWS, bool), here], axis=1))


@pytest.mark.parametrize("junk", [1e30, -np.inf])
def test_what_stands_in_masked_rows_is_not_read(junk: float) -> None:
    here = np.ones((ROWS, 2), dtype=bool)
    here[5:, 1] = False
    X = tables()
    first = Reader().fit_blocks(X, here)
    X["cxr"][5:] = junk
    second = Reader().fit_blocks(X, here)
    for name in X:
        np.testing.assert_array_equal(first.values[name], second.values[name])


def test_only_the_chosen_rows_are_learned_from() -> None:
    X, rows = tables(), np.arange(3, ROWS)
    chosen = {name: table[rows].copy() for name, table in X.items()}
    for table in X.values():
        table[:3] = 1e6
    reader = Reader()
    blocks = reader.fit_blocks(X, None, rows)
    expected = Reader().fit_blocks(chosen)
    for name in X:
        np.testing.assert_array_equal(blocks.values[name], expected.values[name])
    np.testing.assert_array_equal(blocks.present, expected.present)


def test_a_modality_that_is_not_given_counts_as_missing() -> None:
    reader = Reader().fit(tables())
    blocks = reader.blocks({"cxr": tables()["cxr"]})
    assert list(blocks.values) == ["ehr", "cxr"]
    np.testing.assert_array_equal(blocks.present, [[False, True]] * ROWS)


@pytest.mark.parametrize("kind", ["table", "embedding"])
def test_a_table_may_be_none_for_every_new_sample(kind: str) -> None:
    reader = Reader().fit(Samples(tables(), kinds={"ehr": kind}))
    blocks = reader.blocks({"ehr": [None], "cxr": tables()["cxr"][:1]})
    expected = reader.blocks({"cxr": tables()["cxr"][:1]})
    np.testing.assert_array_equal(blocks.present, expected.present)
    np.testing.assert_array_equal(blocks.values["ehr"], expected.values["ehr"])


def test_the_order_of_training_defines_the_order() -> None:
    X = tables()
    reader = Reader().fit(X)
    turned = reader.blocks({"cxr": X["cxr"], "ehr": X["ehr"]})
    straight = reader.blocks(X)
    assert list(turned.values) == list(straight.values)
    for name in X:
        np.testing.assert_array_equal(turned.values[name], straight.values[name])


def test_frames_and_arrays_give_the_same() -> None:
    X = tables()
    frames = {name: pd.DataFrame(table) for name, table in X.items()}
    first, second = Reader().fit_blocks(X), Reader().fit_blocks(frames)
    for name in X:
        np.testing.assert_array_equal(first.values[name], second.values[name])


def test_lists_booleans_and_nullable_columns_are_numbers() -> None:
    frame = pd.DataFrame({"flag": [True, False, True], "count": pd.array([1, None, 3], "Int64")})
    blocks = Reader().fit_blocks({"a": frame, "b": [[1.0], [2.0], [4.0]]})
    assert blocks.values["a"].shape == (3, 3)
    assert np.isfinite(blocks.values["a"]).all()


@pytest.mark.parametrize("framed", [False, True])
def test_column_groups_are_the_same_as_a_dict(framed: bool) -> None:
    X = tables()
    array: Any = np.hstack([X["ehr"], X["cxr"]])
    groups: dict[str, Any] = {"ehr": slice(0, 3), "cxr": [3, 4]}
    if framed:
        array = pd.DataFrame(array, columns=list("vwxyz"))
        groups = {"ehr": slice(0, 3), "cxr": ["y", "z"]}
    first, second = Reader().fit_blocks(X), Reader(groups).fit_blocks(array)
    for name in X:
        np.testing.assert_array_equal(first.values[name], second.values[name])


def frames(**columns: Any) -> dict[str, Any]:
    return {"ehr": pd.DataFrame(columns), "cxr": tables()["cxr"]}


SECRET = 987654.25

BAD: dict[str, tuple[Mapping[str, Any], str]] = {
    "text": (
        frames(age=np.arange(12.0), city=["secret"] * 12),
        "modality 'ehr' has text in columns 'city'; encode them as numbers",
    ),
    "text in an array": (
        {"ehr": np.array([["1", "secret"]] * ROWS, dtype=object)},
        "modality 'ehr' has text in columns 1;",
    ),
    "text in lists": ({"ehr": [[1, "secret"]] * ROWS}, "modality 'ehr' has text in columns 1;"),
    "infinity": (
        {"ehr": np.where(np.arange(36).reshape(12, 3) == 4, np.inf, SECRET)},
        "modality 'ehr' has infinite values in columns 1",
    ),
    "infinity in a frame": (
        frames(age=np.arange(12.0), dose=[np.inf] * 12),
        "modality 'ehr' has infinite values in columns 'dose'",
    ),
    "one dimension": (
        {"ehr": np.full(ROWS, SECRET)},
        "modality 'ehr' must be two-dimensional (samples, columns), but its shape is (12,)",
    ),
    "no columns": ({"ehr": np.empty((ROWS, 0))}, "modality 'ehr': Found array with 0 feature(s)"),
    "rows": (
        {"ehr": np.full((ROWS, 2), SECRET), "cxr": np.full((ROWS - 1, 2), SECRET)},
        "modalities have different numbers of rows: {'ehr': 12, 'cxr': 11}",
    ),
    "index": (
        {"ehr": pd.DataFrame({"a": [1.0, 2]}), "cxr": pd.DataFrame({"b": [1.0, 2]}, index=[1, 0])},
        "the index of modality 'cxr' has the samples in another order than modality 'ehr'",
    ),
    "nothing observed": (
        {"ehr": np.where(np.arange(ROWS)[:, None] % 3 == 1, np.nan, SECRET)},
        "4 samples have no modality at all (rows 1, 4, 7, 10); remove them first",
    ),
    "a modality nobody has": (
        {"ehr": np.full((ROWS, 2), SECRET), "cxr": np.full((ROWS, 2), np.nan)},
        "modality 'cxr' is missing for every training sample",
    ),
    "no modality": ({}, "X has no modality"),
    "complex": (
        {"ehr": np.full((ROWS, 2), SECRET * 1j)},
        "modality 'ehr' has complex numbers in columns 0, 1",
    ),
    "objects": (
        frames(age=np.arange(12.0), more=[{"secret": 1}] * 12),
        "modality 'ehr' has objects in columns 'more'",
    ),
    "one name twice": (
        {"ehr": pd.DataFrame(np.ones((ROWS, 2)), columns=["age", "age"])},
        "modality 'ehr' has several columns called 'age'",
    ),
}

DAYS = pd.date_range("2020-01-01", periods=ROWS)
TIMES: dict[str, Any] = {
    "datetime64": DAYS,
    "with NaT": DAYS.where(np.arange(ROWS) > 3),
    "all NaT": pd.DatetimeIndex([pd.NaT] * ROWS),
    "time zone": DAYS.tz_localize("Europe/Zurich"),
    "durations": DAYS - DAYS[0],
    "periods": DAYS.to_period("D"),
    "dates": pd.Series(DAYS.date, dtype=object),
    "timestamps": pd.Series(list(DAYS), dtype=object),
    "numbers with a NaT": pd.Series([pd.NaT] + [1.0] * (ROWS - 1), dtype=object),
    "numpy times": pd.Series(list(DAYS.to_numpy()), dtype=object),
    "categories": pd.Categorical(DAYS),
    "times of day": pd.Series([day.time() for day in DAYS], dtype=object),
}


@pytest.mark.parametrize("kind", TIMES)
def test_trap_dates_do_not_become_numbers(kind: str) -> None:
    """numpy counts nanoseconds from 1970, and NaT is the least integer, -9.2e18."""
    frame = pd.DataFrame({"age": np.arange(float(ROWS)), "admitted": TIMES[kind]})
    for X in ({"ehr": frame}, frame):
        with pytest.raises(ValueError, match="has dates or durations in columns 'admitted'"):
            Reader().fit(X)
    reader = Reader().fit({"ehr": frame.assign(admitted=1.0)})
    with pytest.raises(ValueError, match="has dates or durations in columns 'admitted'"):
        reader.blocks({"ehr": frame})
    with pytest.raises(ValueError, match="has dates or durations in columns 1"):
        Reader().fit({"ehr": frame.astype(object).to_numpy()})


def test_trap_an_array_of_dates_does_not_become_numbers() -> None:
    days = np.stack([DAYS.to_numpy(), DAYS.to_numpy()], axis=1)
    for X in ({"ehr": days}, days, {"ehr": days - days[0]}):
        with pytest.raises(ValueError, match="has dates or durations in columns 0, 1"):
            Reader().fit(X)


@pytest.mark.parametrize("missing", [pd.NA, None, np.nan])
def test_all_marks_of_what_is_missing_are_alike(missing: Any) -> None:
    X = tables()["ehr"]
    X[2, 1] = X[4] = np.nan
    objects = X.astype(object)
    objects[np.isnan(X)] = missing
    both = {"ehr": X, "cxr": tables()["cxr"]}
    expected = Reader().fit_blocks(both)
    for table in (objects, pd.DataFrame(objects), pd.DataFrame(objects).astype("Float64")):
        found = Reader().fit_blocks(both | {"ehr": table})
        np.testing.assert_array_equal(found.values["ehr"], expected.values["ehr"])
        np.testing.assert_array_equal(found.present, expected.present)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dok", "lil", "frame"])
def test_sparse_tables_are_read_as_dense_ones(kind: str) -> None:
    X = tables()
    X["ehr"][::2, :2] = 0.0
    X["ehr"][1, 2] = np.nan
    expected = Reader().fit_blocks(X)

    def thin(table: np.ndarray) -> Any:
        if kind == "frame":
            return pd.DataFrame.sparse.from_spmatrix(sparse.csr_array(table))
        return sparse.csr_matrix(table).asformat(kind)

    whole = thin(np.hstack(list(X.values())))
    reader = Reader({"ehr": slice(0, 3), "cxr": [3, 4]})
    for found in (Reader().fit_blocks(X | {"ehr": thin(X["ehr"])}), reader.fit_blocks(whole)):
        for name in X:
            np.testing.assert_array_equal(found.values[name], expected.values[name])
    np.testing.assert_array_equal(reader.blocks(whole).values["ehr"], expected.values["ehr"])


def test_sparse_modalities_are_dense_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one dense float64 table lives while a modality is read."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    numbers = reading.numbers

    def watched(name: str, table: Any) -> np.ndarray:
        nonlocal most
        found = numbers(name, table)
        alive.append(weakref.ref(found))
        most = max(most, sum(one() is not None for one in alive))
        return found

    monkeypatch.setattr(reading, "numbers", watched)
    X = {name: sparse.csr_array(np.eye(ROWS)) for name in "abcde"}
    Reader().fit(X).blocks(X)
    assert len(alive) == 15  # twice to learn from it and once to read it
    assert most <= 2, "the one that was just read, and the one before"


@pytest.mark.parametrize("case", BAD)
def test_bad_training_input_is_named_and_its_values_are_not_shown(case: str) -> None:
    X, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as caught:
        Reader().fit(X)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "secret" not in str(seen)
        assert str(SECRET) not in str(seen)
        seen = seen.__cause__ or seen.__context__


def test_only_the_first_few_rows_are_listed() -> None:
    with pytest.raises(ValueError, match=r"rows 0, 1, 2, 3, 4, \.\.\)"):
        Reader().fit({"ehr": np.where(np.arange(ROWS)[:, None] < 6, np.nan, np.ones((ROWS, 2)))})


def test_rows_that_are_not_learned_from_may_have_no_modality() -> None:
    """Such as those of weight zero; the others are still named by their place in X."""
    X = {"ehr": np.where(np.arange(ROWS)[:, None] % 6 == 1, np.nan, tables()["ehr"])}
    kept = np.flatnonzero(np.arange(ROWS) % 6 != 1)
    assert Reader().fit_blocks(X, None, kept).present.all()
    with pytest.raises(ValueError, match=r"1 samples have no modality at all \(rows 7\)"):
        Reader().fit_blocks(X, None, np.append(kept, 7))


def test_wrong_width_says_both_widths() -> None:
    rng = np.random.default_rng(0)
    reader = Reader().fit({"cxr": rng.normal(size=(4, 256))})
    message = "modality 'cxr' has 512 columns; the fitted model expects 256"
    with pytest.raises(ValueError, match=re.escape(message)):
        reader.blocks({"cxr": rng.normal(size=(4, 512))})


def test_columns_in_another_order_are_refused() -> None:
    frame = pd.DataFrame({"age": [1.0, 2, 3], "dose": [1.0, 3, 5]})
    reader = Reader().fit({"ehr": frame})
    with pytest.raises(ValueError, match="'dose' stands where the fitted model expects 'age'"):
        reader.blocks({"ehr": frame[["dose", "age"]]})


def test_an_unknown_modality_gets_a_suggestion() -> None:
    reader = Reader().fit(tables())
    message = re.escape("unknown modality 'cxrs'; did you mean 'cxr'? The model knows: ehr, cxr")
    with pytest.raises(ValueError, match=message):
        reader.blocks({"cxrs": tables()["cxr"], "ehr": tables()["ehr"]})
    with pytest.raises(ValueError, match=message):
        Reader().fit(tables(), {"cxrs": np.ones(ROWS, bool)})


@pytest.mark.parametrize(
    "mask", [np.ones((ROWS, 3), bool), np.ones((ROWS, 2)), np.ones(ROWS, bool)]
)
def test_a_mask_of_another_shape_or_kind_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"present must be boolean of shape \(12, 2\), got"):
        Reader().fit(tables(), mask)


@pytest.mark.parametrize("group", [[4, 5], slice(3, 9), ["z"]])
def test_groups_outside_of_the_array_are_refused(group: Any) -> None:
    array = np.hstack(list(tables().values()))
    with pytest.raises(
        ValueError, match=r"modality 'cxr': columns .* are not all among the 5 of X"
    ):
        Reader({"ehr": slice(0, 3), "cxr": group}).fit(array)


def test_a_group_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"modality 'b': slice\(2, None, None\) picks no column"):
        Reader({"a": slice(0, 2), "b": slice(2, None)}).fit(np.ones((4, 2)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [0, 1], "b": [1, 2]}, "column 1 of X is in modality 'a' and again in 'b'"),
        ({"a": slice(0, 3), "b": range(2, 4)}, "column 2 of X is in modality 'a' and again in 'b'"),
        ({"a": [0, -1], "b": [4]}, "column 4 of X is in modality 'a' and again in 'b'"),
        ({"a": [0, 0]}, "column 0 of X is in modality 'a' and again in 'a'"),
        ({"a": [True, True]}, "are not all among the 5 of X"),
        ({"a": [0.5]}, "are not all among the 5 of X"),
        ({}, "`modalities` is empty"),
    ],
)
def test_groups_that_overlap_or_name_nothing_are_refused(
    groups: dict[str, Any], message: str
) -> None:
    array = np.hstack(list(tables().values()))
    with pytest.raises(ValueError, match=re.escape(message)):
        Reader(groups).fit(array)


def test_groups_of_names_that_overlap_are_refused() -> None:
    frame = pd.DataFrame(np.hstack(list(tables().values())), columns=list("vwxyz"))
    with pytest.raises(ValueError, match="column 'w' of X is in modality 'a' and again in 'b'"):
        Reader({"a": ["v", "w"], "b": pd.Index(["w", "x"])}).fit(frame)
    with pytest.raises(ValueError, match="columns wx are not all among the 5 of X"):
        Reader({"a": "wx"}).fit(frame)  # a name, not the letters of one
    frame.columns = list("vvxyz")
    with pytest.raises(ValueError, match="X has several columns called 'v'"):
        Reader({"a": ["v"]}).fit(frame)
    assert Reader({"a": ["x"]}).fit(frame).names_ == ["a"], "of the others nothing is asked"


def test_groups_with_a_dict_are_refused() -> None:
    with pytest.raises(ValueError, match="but X is a dict"):
        Reader({"ehr": slice(0, 3)}).fit(tables())
