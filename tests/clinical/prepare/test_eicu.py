"""What is made of eICU's tables beside series: numbers, documents, the score to beat."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

import raw_eicu
from cm2.clinical.prepare.documents import vectorize
from cm2.clinical.prepare.eicu_columns import STAY, TIMES
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.pipeline import Options, prepare
from cm2.clinical.prepare.places import Named


class Made(NamedTuple):
    """A prepared folder in memory; a stay without a modality has a row of nulls."""

    inputs: dict[str, pd.DataFrame]
    documents: dict[str, pd.Series]
    target: pd.Series
    score: pd.Series
    flow: dict[str, int]


def read(out: Path, manifest: dict[str, Any]) -> Made:
    stays = pd.read_parquet(out / "stays.parquet").set_index("stay_id")
    kinds = {name: one["kind"] for name, one in manifest["modalities"].items()}
    tables = {name: pd.read_parquet(out / f"{name}.parquet") for name in kinds}
    scores = out / "scores.parquet"
    known = pd.read_parquet(scores).set_index("stay_id")["apache_iva"] if scores.exists() else None
    return Made(
        {
            name: tables[name].set_index("stay_id").reindex(stays.index)
            for name, kind in kinds.items()
            if kind == "tabular"
        },
        {
            name: tables[name].groupby("stay_id")["text"].agg("\n".join).reindex(stays.index)
            for name, kind in kinds.items()
            if kind == "text"
        },
        stays["label"],
        pd.Series(np.nan, stays.index) if known is None else known,
        {str(step): int(count) for step, count in manifest["flow"]},
    )


def build(folder: Path, raw: dict[str, pd.DataFrame], hours: float = 24.0) -> Made:
    raw_eicu.write(folder / "raw", raw)
    manifest = prepare("eicu", folder / "raw", folder / "out", Options(hours=hours))
    return read(folder / "out", manifest)


@pytest.fixture
def raw() -> dict[str, pd.DataFrame]:
    return raw_eicu.tables()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return build(tmp_path_factory.mktemp("plain"), raw_eicu.tables())


def test_exclusions_are_counted(plain: Made) -> None:
    counts = {step: count for step, count in plain.flow.items() if count}
    assert counts == {
        "rows of stays found": 12,
        "excluded: outcome of the hospital admission unknown": 1,
        "excluded: left the unit before 24 h": 1,
        "stays kept": 10,
    }
    assert plain.target.index.tolist() == list(range(103, 113))
    assert plain.target.tolist() == [0, 1] * 5


def test_a_stay_without_rows_lacks_the_modality(plain: Made) -> None:
    for name in ("vitals", "exam", "treatment"):
        missing = plain.inputs[name].isna().all(axis=1)
        assert missing[missing].index.tolist() == [110, 111, 112]
    for document in plain.documents.values():
        assert document[document.isna()].index.tolist() == [110, 111, 112]
    missing = plain.inputs["apache"].isna().all(axis=1)
    assert missing[missing].index.tolist() == [111, 112]
    assert not plain.inputs["static"].isna().all(axis=1).any()


def test_minus_one_is_missing_in_apache(plain: Made) -> None:
    assert plain.inputs["apache"]["ph"].isna().all()
    assert plain.score.isna().sum() == 3  # one of -1, two without a row
    assert plain.score.dropna().between(0, 1).all()


def test_fractions_become_per_cent(plain: Made) -> None:
    oxygen = plain.inputs["vitals"]["fraction_inspired_oxygen_mean"].dropna()
    np.testing.assert_allclose(oxygen, 40.0)


def test_summaries_are_those_of_the_raw_rows(raw: dict[str, pd.DataFrame], plain: Made) -> None:
    rows = raw["vitalaperiodic"].query(f"{STAY} == 105")
    pressure = rows["noninvasivemean"].to_numpy(float)
    found = plain.inputs["vitals"].loc[105].filter(like="mean_blood_pressure_")
    slope = np.polyfit(rows["observationoffset"] / 60, pressure, 1)[0]
    expected = [
        3,
        pressure.mean(),
        pressure.min(),
        pressure.max(),
        pressure[0],
        pressure[-1],
        slope,
    ]
    np.testing.assert_allclose(found, expected)
    urine = raw["intakeoutput"].query(f"{STAY} == 105")["cellvaluenumeric"].sum()
    assert plain.inputs["vitals"].loc[105, "urine_total"] == urine


def test_an_examination_is_known_when_its_note_is(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    # The table of examinations does not tell when their note was entered.
    raw["note"].loc[raw["note"][STAY] == 106, "noteenteredoffset"] = 24 * 60
    exam = build(tmp_path, raw).inputs["exam"]
    assert exam.loc[106].isna().all()
    assert exam.loc[105].notna().any()


def test_a_shorter_window_has_nothing_of_the_whole_day(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    made = build(tmp_path, raw, hours=12.0)
    assert "apache" not in made.inputs
    assert made.score.isna().all()
    assert made.inputs["vitals"].loc[105, "mean_blood_pressure_count"] == 2


def test_row_order_does_not_matter(raw: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    # Of each minute two rows, so that their order is not that of time.
    for name, (time, *_) in TIMES.items():
        again = raw[name].assign(**{time: raw[name].groupby(STAY)[time].shift(-1)})
        raw[name] = pd.concat([raw[name], again.dropna(subset=time).astype({time: int})])
    first = build(tmp_path / "first", raw)
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in raw.items()}
    made = build(tmp_path / "again", shuffled)
    assert_series_equal(made.target, first.target)
    assert_series_equal(made.score, first.score)
    for name, frame in first.inputs.items():
        # Sums of floats in another order.
        assert_frame_equal(made.inputs[name], frame, rtol=1e-12)
    for name, document in first.documents.items():
        assert_series_equal(made.documents[name], document)


def test_no_stay_left_says_so(raw: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no stay is left"):
        build(tmp_path, raw, hours=66.0)


def test_documents_are_vectorised_by_training_rows_only(plain: Made) -> None:
    notes = plain.documents["notes"]
    train = notes.index[:5]
    before = vectorize(notes, train, 2)
    changed = notes.copy()
    changed.loc[109] = "unheard|of|words"
    after = vectorize(changed, train, 2)
    assert_frame_equal(before.drop(index=109), after.drop(index=109), check_exact=True)
    assert before.isna().all(axis=1).sum() == 3


@pytest.fixture(scope="module")
def real(data_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("eicu") / "out"
    return read(out, prepare("eicu", data_home / "eicu-demo", out, Options(hours=24)))


def test_the_demo_has_its_known_counts(real: Made) -> None:
    assert real.flow["rows of stays found"] == 2520
    assert real.flow["excluded: another stay in the same admission"] == 601
    assert real.flow["excluded: left the unit before 24 h"] == 578
    assert real.flow["stays kept"] == len(real.target) == 1292
    assert real.target.sum() == 103
    assert real.score.notna().sum() == 1096


def test_modalities_of_the_demo_are_really_missing_for_some(real: Made) -> None:
    known = {**real.inputs, **real.documents}
    rates = {name: float(pd.DataFrame(f).isna().all(axis=1).mean()) for name, f in known.items()}
    assert rates.pop("static") == 0
    assert len(rates) == 6
    assert all(0.005 < rate < 0.1 for rate in rates.values()), rates


def test_no_input_of_the_demo_is_infinite_or_empty(real: Made) -> None:
    for frame in real.inputs.values():
        assert not np.isinf(frame.to_numpy()).any()
        assert frame.notna().any().all()


def test_a_row_of_a_patient_twice_is_one(raw: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    raw["patient"] = pd.concat([raw["patient"], raw["patient"].iloc[[4]]])
    made = build(tmp_path, raw)
    assert made.flow["excluded: a row of the same stay again"] == 1
    assert made.target.index.is_unique
    assert pd.read_parquet(tmp_path / "out" / "static.parquet")["stay_id"].is_unique
    other = raw["patient"].iloc[[4]].assign(admissionheight=190.0)
    raw["patient"] = pd.concat([raw["patient"], other])
    with pytest.raises(TableError, match="patient: 1 stays have rows that contradict each other"):
        build(tmp_path / "more", raw)


def test_without_a_calendar_there_is_no_time_of_prediction(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    build(tmp_path, raw)
    assert pd.read_parquet(tmp_path / "out" / "stays.parquet")["prediction_time"].isna().all()
    with pytest.raises(TableError, match=r"eicu has no calendar.*leave --meds"):
        prepare("eicu", tmp_path / "raw", tmp_path / "more", Options(hours=24, meds=True))


def test_two_ways_to_split_and_notes_that_are_none_are_refused(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    raw_eicu.write(tmp_path / "raw", raw)
    told = tmp_path / "splits.csv"
    told.write_text("subject_id,split\n2000000001,train\n")
    with pytest.raises(TableError, match="--splits and --split-by are two ways to split"):
        prepare(
            "eicu", tmp_path / "raw", tmp_path / "out", Options(hours=24, split_by="hospital"),
            named=Named(split_file=told),
        )  # fmt: skip
    with pytest.raises(TableError, match="eicu has no clinical notes; leave --notes-of"):
        prepare("eicu", tmp_path / "raw", tmp_path / "out", Options(hours=24, notes_of="third"))
