"""The dense grid against a plain loop, what fills its gaps, and what it must refuse."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm2.clinical.prepare import grid
from cm2.clinical.prepare.variables import NAMES, VARIABLES, Variable, variable
from measured import Extracted, row, stay


def batches(rows, size=7):
    """Rows of (stay, variable, bin, value, level) as batches, in the given order."""
    schema = pa.schema(
        [
            ("stay_id", pa.int64()),
            ("variable", pa.string()),
            ("bin", pa.int64()),
            ("value", pa.float64()),
            ("level", pa.int64()),
        ]
    )
    made = [dict(zip(schema.names, one, strict=True)) for one in rows]
    return pa.Table.from_pylist(made, schema=schema).to_batches(max_chunksize=size)


def write(tmp_path, rows, stays, training=None, **options):
    path = tmp_path / "series.parquet"
    stays = np.asarray(stays, dtype=np.int64)
    training = np.ones(len(stays), dtype=bool) if training is None else np.asarray(training)
    return grid.write_series(batches(rows), stays, training, path, **options), pd.read_parquet(path)


def random_rows(generator, stays, bins):
    """About a third of all cells, each variable somewhere."""
    rows = []
    for stay_id in stays:
        for one in VARIABLES:
            for step in range(bins):
                if generator.random() < 0.3:
                    level = int(generator.integers(len(one.codes))) if one.codes else None
                    value = one.codes[level].value if one.codes else generator.normal(80, 9)
                    rows.append((stay_id, one.name, step, float(value), level))
    return rows


def by_loop(rows, stays, bins):
    """The grid, cell by cell."""
    cells = {(s, v, b): (value, level) for s, v, b, value, level in rows}
    filled, masks = {}, {}
    for s in stays:
        for one in VARIABLES:
            normal = next((k for k, c in enumerate(one.codes) if c.value == one.normal), None)
            current = (one.normal, normal)
            for b in range(bins):
                masks[s, one.name, b] = (s, one.name, b) in cells
                current = cells.get((s, one.name, b), current)
                filled[s, one.name, b] = current
    out = []
    for s in stays:
        for b in range(bins):
            line = []
            for one in VARIABLES:
                value, level = filled[s, one.name, b]
                if one.codes:
                    line += [float(level == k) for k in range(len(one.codes))]
                else:
                    line.append(value)
            line += [float(masks[s, name, b]) for name in NAMES]
            out.append(line)
    return np.array(out)


@pytest.mark.parametrize("chunk", [2, 1024])
def test_grid_is_that_of_a_plain_loop(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(grid, "CHUNK", chunk)
    generator = np.random.default_rng(0)
    stays, bins = [7, 3, 5, 11, 9], 6
    rows = random_rows(generator, stays, bins)
    training = [stay_id != 5 for stay_id in stays]
    shuffled = [rows[k] for k in generator.permutation(len(rows))]
    made, frame = write(tmp_path, shuffled, stays, training, hours=bins)
    assert frame["stay_id"].tolist() == np.repeat(sorted(stays), bins).tolist()
    assert frame["bin"].tolist() == list(range(bins)) * len(stays)
    expected = by_loop(rows, sorted(stays), bins)
    assert tuple(frame.columns) == ("stay_id", "bin", *grid.COLUMNS)
    np.testing.assert_allclose(frame[list(grid.COLUMNS)], expected, rtol=1e-4, atol=1e-5)
    assert made.bins == bins
    assert made.stay_id.tolist() == sorted(stays)


def test_columns_are_float32(tmp_path):
    write(tmp_path, [(1, "heart_rate", 0, 80.0, None)], [1])
    schema = pq.read_schema(tmp_path / "series.parquet")
    assert schema.names == ["stay_id", "bin", *grid.COLUMNS]
    assert {schema.field(name).type for name in grid.COLUMNS} == {pa.float32()}


def test_each_row_has_one_category_a_variable(tmp_path):
    rows = random_rows(np.random.default_rng(1), [1, 2], 4)
    _, frame = write(tmp_path, rows, [1, 2], hours=4)
    for one in VARIABLES:
        if one.codes:
            columns = [f"{one.name}_{code.name}" for code in one.codes]
            assert (frame[columns].sum(axis=1) == 1).all()


def test_what_fills_gaps_is_learned_from_training_stays_only(tmp_path):
    """The median of a variable that has no normal value, where it was never observed before."""
    one = (Variable("pain", "", math.nan),)
    rows = [(1, "pain", 1, 3.0, None), (2, "pain", 1, 5.0, None), (3, "pain", 1, 99.0, None)]
    options = {"hours": 2, "variables": one}
    _, frame = write(tmp_path, rows, [1, 2, 3], [True, True, False], **options)
    assert frame["pain"].tolist() == [4, 3, 4, 5, 4, 99]
    assert frame["mask_pain"].tolist() == [0, 1] * 3


def test_stays_without_observations_are_left_out_and_counted(tmp_path):
    rows = [(1, "heart_rate", 1, 80.0, None), (4, "ph", 1, 7.3, None)]
    made, frame = write(tmp_path, rows, [4, 2, 1])
    assert made.stay_id.tolist() == [1, 4]
    assert set(frame["stay_id"]) == {1, 4}
    assert made.missing["heart_rate"] == 2
    assert made.missing["glucose"] == 3
    assert made.cells["heart_rate"] == 1


def test_written_again_it_is_the_same_to_the_byte(tmp_path):
    rows = random_rows(np.random.default_rng(3), [1, 2, 3], 4)
    write(tmp_path, rows, [1, 2, 3], hours=4)
    first = (tmp_path / "series.parquet").read_bytes()
    write(tmp_path, rows[::-1], [3, 2, 1], hours=4)
    assert (tmp_path / "series.parquet").read_bytes() == first


def test_two_hour_bins_are_those_of_the_reference(tmp_path):
    made = Extracted([row("211", 70.0, 1.5), row("211", 80.0, 47.9)], hours_per_bin=2)
    path = tmp_path / "series.parquet"
    last = pa.Table.from_pandas(made.last).to_batches()
    ids, training = np.array([100]), np.array([True])
    written = grid.write_series(last, ids, training, path, hours=48, hours_per_bin=2)
    frame = pd.read_parquet(path)
    assert written.bins == len(frame) == 24
    assert frame.loc[frame["mask_heart_rate"] == 1, "bin"].tolist() == [0, 23]


def test_from_raw_rows_to_columns(tmp_path):
    rows = [
        row("223900", "No Response-ETT", 0.5),
        row("223900", "Confused", 2.5),
        row("723", "1.0 ET/Trach", 1.0, stay_id=200, hadm_id=20),
        row("190", 0.5, 1.2),
    ]
    made = Extracted(rows, [stay(100), stay(200, 20)])
    path = tmp_path / "series.parquet"
    ids, training = np.array([100, 200]), np.array([True, True])
    grid.write_series(pa.Table.from_pandas(made.last).to_batches(), ids, training, path, hours=4)
    frame = pd.read_parquet(path).set_index(["stay_id", "bin"])
    verbal = [f"gcs_verbal_{code.name}" for code in variable("gcs_verbal").codes]
    names = frame[verbal].idxmax(axis=1).str.removeprefix("gcs_verbal_")
    assert names[100].tolist() == ["metavision_intubated"] * 2 + ["metavision_4"] * 2
    assert names[200].tolist() == ["carevue_5"] + ["carevue_intubated"] * 3
    assert frame.loc[100, "mask_gcs_verbal"].tolist() == [1, 0, 1, 0]
    raw = [0.21, 0.5, 0.5, 0.5, 0.21, 0.21, 0.21, 0.21]
    np.testing.assert_allclose(frame["fraction_inspired_oxygen"], raw, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "stays", "training", "message"),
    [
        ([(1, "ph", 0, 7.4, None)], [1, 1], None, "1 stay ids are there more than once"),
        ([(9, "ph", 0, 7.4, None)], [1, 2], None, "not among the given stays"),
        ([(1, "ph", 48, 7.4, None)], [1], None, "bins outside -1 to 47"),
        ([(1, "ph", -2, 7.4, None)], [1], None, "bins outside -1 to 47"),
        ([(1, "ph", 0, 7.4, None)], [1, 2], [False, True], "none of the 1 training stays"),
        ([], [1, 2], None, "none of the 2 training stays"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, rows, stays, training, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, rows, stays, training)


def test_the_grid_starts_from_what_lies_before_the_window(tmp_path):
    rows = [
        (1, "weight", -1, 60.0, None),
        (1, "weight", 2, 62.0, None),
        (2, "heart_rate", 0, 90.0, None),
    ]
    made, frame = write(tmp_path, rows, [1, 2], hours=4)
    np.testing.assert_allclose(
        frame["weight"], [60, 60, 62, 62] + [variable("weight").normal] * 4, rtol=1e-6
    )
    assert frame["mask_weight"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert (made.cells["weight"], made.missing["weight"], made.bins) == (1, 1, 4)


def test_a_stay_with_nothing_but_what_lies_before_the_window_has_no_grid(tmp_path):
    rows = [(1, "weight", -1, 60.0, None), (2, "weight", 0, 70.0, None)]
    made, _ = write(tmp_path, rows, [1, 2], hours=4)
    assert made.stay_id.tolist() == [2]
