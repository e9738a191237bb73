"""Whose notes are read: all, those of a list, or the third that the paper's code drew."""

from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

import raw_mimic3
from cm2.cli import main
from cm2.clinical.prepare import noted
from cm2.clinical.prepare.engine import DuckDB
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stay has a note an hour in."""
    tables = raw_mimic3.tables()
    stays = tables["ICUSTAYS"]
    time = pd.to_datetime(stays["INTIME"]) + pd.Timedelta(hours=1)
    tables["NOTEEVENTS"] = pd.DataFrame(
        {
            "ROW_ID": range(len(stays)),
            "SUBJECT_ID": stays["SUBJECT_ID"],
            "HADM_ID": stays["HADM_ID"],
            "CHARTTIME": time,
            "STORETIME": time,
            "CATEGORY": "Nursing",
            "ISERROR": "",
            "TEXT": "resting",
        }
    )
    return raw_mimic3.write(tmp_path_factory.mktemp("raw"), tables)


def test_stays_are_numbered_by_patient_in_order_of_time() -> None:
    day = pd.Timestamp("2100-01-01") + pd.to_timedelta([5, 1, 3, 1], "D")
    frame = pd.DataFrame({"stay_id": [4, 3, 2, 1], "subject_id": [7, 7, 7, 8], "intime": day})
    engine = DuckDB()
    found = noted.episodes(engine, ibis.memtable(frame.assign(outtime=day)))
    engine.close()
    assert found.to_dict() == {3: 1, 2: 2, 4: 3, 1: 1}


def test_the_third_is_that_of_sorted_names() -> None:
    rng = np.random.default_rng(0)
    stays = pd.DataFrame(
        {
            "stay_id": rng.permutation(300),
            # Numbers of patients of several lengths: names sort otherwise than numbers.
            "subject_id": rng.permutation(np.r_[1:100, 1000:1201]),
            "split": rng.choice(["train", "validation", "test"], 300, p=[0.7, 0.15, 0.15]),
        }
    )
    episode = pd.Series(rng.integers(1, 4, 300), index=stays["stay_id"])
    found = noted.third(stays, episode)
    drawn: list[int] = []
    for part in ("test", "train", "validation"):
        lines = {
            f"{row.subject_id}_episode{episode[row.stay_id]}_timeseries.csv": row.stay_id
            for row in stays[stays["split"] == part].itertuples()
        }
        listfile = pd.DataFrame({"stay": sorted(lines)})
        names = listfile.sample(frac=1 / 3, random_state=42)["stay"]
        assert len(names) == round(len(lines) / 3)
        drawn += [lines[name] for name in names]
    assert found == sorted(drawn)
    shuffled = stays.sample(frac=1, random_state=1)
    assert noted.third(shuffled, episode) == found


@pytest.mark.parametrize(("size", "third"), [(14_681, 4_894), (3_222, 1_074), (3_236, 1_079)])
def test_the_third_has_the_published_sizes(size: int, third: int) -> None:
    stays = pd.DataFrame({"stay_id": range(size), "subject_id": range(size), "split": "train"})
    assert len(noted.third(stays, pd.Series(1, index=range(size)))) == third


def test_notes_of_other_stays_are_not_read(raw: Path, tmp_path: Path) -> None:
    listed = tmp_path / "stays.csv"
    listed.write_text("stay,ICUSTAY_ID\na,101.0\nb,104\nc,999\n")
    command = ["prepare", "mimic3", "--raw", str(raw), "--out", str(tmp_path / "out")]
    assert main([*command, "--notes-of", str(listed)]) == 0
    stays = pd.read_parquet(tmp_path / "out/stays.parquet")
    assert stays.loc[stays["has_notes"], "stay_id"].tolist() == [101, 104]
    assert stays["has_series"].all()
    listed.write_text("stay_id\n102\n")
    assert main([*command, "--notes-of", str(listed)]) == 2
    about = prepare("mimic3", raw, tmp_path / "third", Options(notes_of="third"))
    stays = pd.read_parquet(tmp_path / "third/stays.parquet")
    sizes = stays["split"].value_counts()
    assert about["counts"]["notes read"] == {
        part: round(sizes.get(part, 0) / 3) for part in ("train", "validation", "test")
    }
    assert stays["has_notes"].sum() == sum(about["counts"]["notes read"].values()) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stay\n1\n", "lacks a column stay_id or icustay_id"),
        ("stay_id\nx\n", "stay_id must be a whole number"),
        ("stay_id\n1.5\n", "stay_id must be a whole number"),
        ("stay_id\n999\n", "none of the 8 stays that are left is in the list"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_list_is_refused(raw: Path, tmp_path: Path, text: str, message: str) -> None:
    listed = tmp_path / "stays.csv"
    listed.write_text(text)
    with pytest.raises(TableError, match=message):
        prepare(
            "mimic3",
            raw,
            tmp_path / "out",
            Options(notes_of="list"),
            named=Named(notes_list=listed),
        )
    assert not (tmp_path / "out").exists()


def test_a_list_and_its_file_go_together(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TableError, match="notes of a list of stays need its file"):
        prepare("mimic3", raw, out, Options(notes_of="list"))
    with pytest.raises(MissingError, match="no such file of stays for --notes-of"):
        prepare(
            "mimic3",
            raw,
            out,
            Options(notes_of="list"),
            named=Named(notes_list=tmp_path / "nothing"),
        )
    with pytest.raises(TableError, match="mimic4 has no clinical notes; leave --notes-of"):
        prepare("mimic4", raw, out, Options(notes_of="third"))
    with pytest.raises(TableError, match="notes_of must be all or third or list"):
        Options(notes_of="half")
