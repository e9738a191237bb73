"""Splits along groups: whole groups, whole patients, the latest years for the test."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2.cli import main
from cm2.clinical.prepare import grouped
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.synthesize import synthesize

FRACTIONS = (0.7, 0.15, 0.15)


def stays(number: int = 400, groups: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    subject = np.arange(number) // 2
    hospital = rng.integers(0, groups, number // 2)[subject].astype(str)
    year = (2010 + rng.integers(0, 8, number // 2)[subject]).astype(str)
    return pd.DataFrame({"subject_id": subject, "hospital": hospital, "year": year})


@pytest.mark.parametrize("seed", range(3))
def test_hospitals_and_patients_are_whole_and_shares_about_right(seed: int) -> None:
    frame = stays()
    part = grouped.assign(frame, "hospital", FRACTIONS, seed=seed)
    assert part.notna().all()
    assert part.groupby(frame["hospital"]).nunique().max() == 1
    assert part.groupby(frame["subject_id"]).nunique().max() == 1
    shares = part.value_counts(normalize=True)
    # A hospital has 3% of the stays, so that a part misses its share by about half of that.
    assert abs(shares["test"] - 0.15) < 0.03
    assert abs(shares["validation"] - 0.15) < 0.03


def test_another_seed_tests_on_other_hospitals() -> None:
    frame = stays()
    tests = [
        set(frame.loc[grouped.assign(frame, "hospital", FRACTIONS, seed=s) == "test", "hospital"])
        for s in (0, 1)
    ]
    assert tests[0] != tests[1]


def test_the_test_is_later_than_the_rest() -> None:
    frame = stays()
    part = grouped.assign(frame, "year", FRACTIONS)
    assert frame.loc[part == "test", "year"].min() > frame.loc[part != "test", "year"].max()
    assert set(part) == {"train", "validation", "test"}


def test_patients_of_two_parts_are_in_none_and_an_unknown_group_is_for_training() -> None:
    frame = stays()
    test = grouped.assign(frame, "hospital", FRACTIONS) == "test"
    moved = frame.index[test][0]
    other = frame.loc[~test, "hospital"].iloc[0]
    frame.loc[moved, "hospital"] = other
    frame.loc[frame.index[-2:], "hospital"] = None
    part = grouped.assign(frame, "hospital", FRACTIONS)
    assert part[frame["subject_id"] == frame.loc[moved, "subject_id"]].isna().all()
    assert (part.iloc[-2:] == "train").all()


def test_the_latest_are_tested_also_where_one_of_them_is_too_many() -> None:
    """An earlier group that would fit is not taken in the place of a later one that does not."""
    sizes = {"2022 - 2024": 10, "2021 - 2023": 40, "2020 - 2022": 5, "2017 - 2019": 45}
    years = [name for name, size in sizes.items() for _ in range(size)]
    frame = pd.DataFrame({"subject_id": np.arange(100), "anchor_year_group": years})
    part = grouped.assign(frame, "anchor_year_group", FRACTIONS)
    assert set(frame.loc[part == "test", "anchor_year_group"]) == {"2022 - 2024"}


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(TableError, match="nothing to split by"):
        grouped.assign(stays(groups=1), "hospital", FRACTIONS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables alone: neither notes nor pictures."""
    folder = tmp_path_factory.mktemp("raw") / "mimic4"
    synthesize("mimic4", 60, folder, seed=5)
    for name in ("note", "cxr"):
        shutil.rmtree(folder / name)
    return folder


def test_mimic4_is_tested_on_its_latest_years(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["prepare", "mimic4", "--raw", str(raw), "--split-by", "anchor_year_group"]
    assert main([*command, "--out", str(out)]) == 0
    frame = pd.read_parquet(out / "stays.parquet")
    late = frame["split"] == "test"
    assert frame.loc[late, "anchor_year_group"].min() > frame.loc[~late, "anchor_year_group"].max()
    patients = pd.read_csv(raw / "hosp" / "patients.csv.gz").set_index("subject_id")
    of_stay = patients.loc[frame["subject_id"]]
    intime = pd.read_csv(raw / "icu" / "icustays.csv.gz", parse_dates=["intime"])
    intime = intime.set_index("stay_id")["intime"].loc[frame["stay_id"]]
    moved = intime.dt.year.to_numpy() - of_stay["anchor_year"].to_numpy()
    assert len(set(moved)) > 1
    ends = of_stay["anchor_year_group"].str.split(" - ", expand=True).astype(int) + moved[:, None]
    expected = (ends[0].astype(str) + " - " + ends[1].astype(str)).tolist()
    assert frame["anchor_year_group"].tolist() == expected


def test_shifted_dates_and_absent_columns_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="shifted by patient"):
        prepare("mimic4", raw, tmp_path / "out", Options(split_by="year"))
    with pytest.raises(TableError, match="split by hospital: its tables do not have it"):
        prepare("mimic4", raw, tmp_path / "out", Options(split_by="hospital"))
    with pytest.raises(TableError, match="split_by must be"):
        Options(split_by="ward")
