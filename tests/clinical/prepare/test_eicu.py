"""The eICU cohort: its counts, and that nothing after the prediction time enters the inputs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

import raw_eicu
from cm2.clinical.prepare.eicu import Cohort, featurize, in_hospital_mortality
from cm2.clinical.prepare.eicu_columns import STAY, TIMES

END = 24 * 60


def build(folder: Path, raw: dict[str, pd.DataFrame], hours: float = 24.0) -> Cohort:
    return in_hospital_mortality(raw_eicu.write(folder, raw), hours=hours)


def assert_same_inputs(one: Cohort, other: Cohort) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    assert one.documents.keys() == other.documents.keys()
    for name, frame in one.inputs.items():
        assert_frame_equal(frame, other.inputs[name], check_exact=True)
    for name, document in one.documents.items():
        assert_series_equal(document, other.documents[name])


def same_inputs(one: Cohort, other: Cohort) -> bool:
    try:
        assert_same_inputs(one, other)
    except AssertionError:
        return False
    return True


@pytest.fixture
def raw() -> dict[str, pd.DataFrame]:
    return raw_eicu.tables()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return build(tmp_path_factory.mktemp("plain"), raw_eicu.tables())


def test_every_exclusion_is_counted(plain: Cohort) -> None:
    assert dict(plain.flow) == {
        "unit stays in the folder": 12,
        "excluded: no stay or patient identifier": 0,
        "excluded: no time of unit discharge": 0,
        "excluded: left the unit before 24 h": 1,
        "excluded: hospital discharge status unknown": 1,
        "stays kept": 10,
        "deaths in hospital": 5,
    }
    assert plain.target.index.tolist() == list(range(103, 113))
    assert plain.target.tolist() == [0, 1] * 5


def test_a_stay_without_rows_lacks_the_modality(plain: Cohort) -> None:
    for name in ("vitals", "exam", "treatment"):
        missing = plain.inputs[name].isna().all(axis=1)
        assert missing[missing].index.tolist() == [110, 111, 112]
    for document in plain.documents.values():
        assert document[document.isna()].index.tolist() == [110, 111, 112]
    missing = plain.inputs["apache"].isna().all(axis=1)
    assert missing[missing].index.tolist() == [111, 112]
    assert not plain.inputs["static"].isna().all(axis=1).any()


def test_minus_one_is_missing_in_apache(plain: Cohort) -> None:
    assert plain.inputs["apache"]["ph"].isna().all()
    assert plain.score.isna().sum() == 3  # one of -1, two without a row
    assert plain.score.dropna().between(0, 1).all()


def test_fractions_become_per_cent(plain: Cohort) -> None:
    oxygen = plain.inputs["vitals"]["fraction_inspired_oxygen_mean"].dropna()
    np.testing.assert_allclose(oxygen, 40.0)


def test_summaries_are_those_of_the_raw_rows(raw: dict[str, pd.DataFrame], plain: Cohort) -> None:
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


def test_a_row_counts_if_and_only_if_all_its_times_lie_inside(tmp_path: Path) -> None:
    raw = raw_eicu.tables(bare=50)
    bare = iter(range(112, 160))
    inside, outside = {}, {}
    for name, times in TIMES.items():
        row = raw[name].query(f"{STAY} == 105").head(1)
        inside[name] = next(bare)
        rows = [row.assign(**{STAY: inside[name], **dict.fromkeys(times, END - 1)})]
        for time in times:
            outside[name, time] = next(bare)
            rows.append(row.assign(**{STAY: outside[name, time], time: END}))
        raw[name] = pd.concat([raw[name], *rows])
    # The table of examinations does not tell when their note was entered.
    raw["note"].loc[raw["note"][STAY] == 106, "noteenteredoffset"] = END
    cohort = build(tmp_path, raw)

    def seen(stay: int) -> bool:
        numbers = [f for name, f in cohort.inputs.items() if name != "static"]
        frames = [*numbers, *(d.to_frame() for d in cohort.documents.values())]
        return any(frame.loc[stay].notna().any() for frame in frames)

    assert {name: seen(stay) for name, stay in inside.items()} == dict.fromkeys(inside, True)
    assert {key: seen(stay) for key, stay in outside.items()} == dict.fromkeys(outside, False)
    exam = cohort.inputs["exam"]
    assert exam.loc[106].isna().all(), "the note of these examinations was entered late"
    assert exam.loc[105].notna().any()
    organ = cohort.inputs["static"]["organ=Respiratory"]
    assert organ[inside["admissiondx"]] == 1
    assert organ[outside["admissiondx", "admitdxenteredoffset"]] == 0


def test_outcomes_do_not_enter_the_inputs(
    raw: dict[str, pd.DataFrame], plain: Cohort, tmp_path: Path
) -> None:
    for name, columns in raw_eicu.OUTCOMES.items():
        for column in columns:
            raw[name][column] = 99
    score = raw["apachepatientresult"]["predictedhospitalmortality"]
    raw["apachepatientresult"]["predictedhospitalmortality"] = 1 - score
    swapped = {"Alive": "Expired", "Expired": "Alive"}
    raw["patient"]["hospitaldischargestatus"] = raw["patient"]["hospitaldischargestatus"].map(
        swapped
    )
    raw["patient"]["unitdischargeoffset"] += 2000 * (raw["patient"][STAY] > 102)
    cohort = build(tmp_path, raw)
    assert_same_inputs(cohort, plain)
    assert (cohort.target == 1 - plain.target).all()


def test_a_shorter_window_has_no_variables_of_the_whole_day(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    cohort = build(tmp_path, raw, hours=12.0)
    assert "apache" not in cohort.inputs
    assert cohort.inputs["vitals"].loc[105, "mean_blood_pressure_count"] == 2


def test_row_order_does_not_matter_nor_that_hours_are_whole(
    raw: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    # Of each minute two rows, so that their order is not that of time.
    for name, (time, *_) in TIMES.items():
        again = raw[name].assign(**{time: raw[name].groupby(STAY)[time].shift(-1)})
        raw[name] = pd.concat([raw[name], again.dropna(subset=time).astype({time: int})])
    first = build(tmp_path / "first", raw)
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in raw.items()}
    cohort = build(tmp_path / "again", shuffled, hours=24)
    assert_series_equal(cohort.target, first.target)
    for name, frame in first.inputs.items():
        # Sums of floats in another order.
        assert_frame_equal(cohort.inputs[name], frame, rtol=1e-12)
    for name, document in first.documents.items():
        assert_series_equal(cohort.documents[name], document)


def test_repeated_stays_are_refused(raw: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    raw["patient"] = pd.concat([raw["patient"], raw["patient"].head(2)])
    with pytest.raises(ValueError, match="2 rows repeat a patientunitstayid"):
        build(tmp_path, raw)


def test_no_stay_left_says_so(raw: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stay is left"):
        build(tmp_path, raw, hours=100.0)


def test_hours_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hours must be positive"):
        in_hospital_mortality(tmp_path, hours=0.0)


def test_featurize_learns_on_training_rows_only(plain: Cohort) -> None:
    train = plain.target.index[:5]
    before = featurize(plain, train, dimensions=2)
    documents = {name: text.copy() for name, text in plain.documents.items()}
    for text in documents.values():
        text.loc[109] = "unheard|of|words"
    changed = Cohort(**{**vars(plain), "documents": documents})
    after = featurize(changed, train, dimensions=2)
    assert set(before) == {"static", "vitals", "exam", "apache", "notes", "diagnosis", "treatment"}
    for name, frame in before.items():
        assert_frame_equal(frame.drop(index=109), after[name].drop(index=109), check_exact=True)
    assert before["notes"].isna().all(axis=1).sum() == 3


@pytest.fixture(scope="module")
def demo(data_home: Path) -> Path:
    return data_home / "eicu-demo"


@pytest.fixture(scope="module")
def real(demo: Path) -> Cohort:
    return in_hospital_mortality(demo)


def test_the_demo_has_its_known_counts(real: Cohort) -> None:
    flow = dict(real.flow)
    assert flow["unit stays in the folder"] == 2520
    assert flow["excluded: left the unit before 24 h"] == 893
    assert flow["excluded: hospital discharge status unknown"] == 20
    assert flow["stays kept"] == len(real.target) == 1607
    assert flow["deaths in hospital"] == real.target.sum() == 141
    assert real.score.notna().sum() == 1214


def test_modalities_of_the_demo_are_really_missing_for_some(real: Cohort) -> None:
    rates = {
        name: frame.isna().all(axis=1).mean()
        for name, frame in featurize(real, real.target.index[:1000], dimensions=4).items()
    }
    assert rates.pop("static") == 0
    assert len(rates) == 6
    assert all(0.01 < rate < 0.1 for rate in rates.values()), rates


def test_no_input_of_the_demo_is_infinite_or_empty(real: Cohort) -> None:
    for frame in real.inputs.values():
        assert not np.isinf(frame.to_numpy()).any()
        assert frame.notna().any().all()
