"""PhysioNet 2012: small sets by hand, and the real ones where they are."""

import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2.clinical.prepare import splits
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.physionet2012 import MEASURES, MODALITIES, VARIABLES
from cm2.clinical.prepare.pipeline import prepare
from cm2.core.layout import MANIFEST
from prepared_batches import Prepared

DOOR = {"Age": 60, "Gender": 1, "Height": -1, "ICUType": 3, "Weight": 80}


def record(stay: int, rows: list[tuple[str, str, object]], **door: float) -> str:
    """A file of one stay, as the challenge writes it."""
    lines = ["Time,Parameter,Value", f"00:00,RecordID,{stay}"]
    lines += [f"00:00,{name},{value}" for name, value in (DOOR | door).items()]
    return "\n".join([*lines, *(f"{time},{name},{value}" for time, name, value in rows)]) + "\n"


def rows_of(stay: int) -> list[tuple[str, str, object]]:
    rows: list[tuple[str, str, object]] = [("00:07", "HR", 70 + stay % 10), ("47:59", "HR", 99)]
    if stay % 2:
        rows += [("03:00", "Lactate", 2.5), ("03:30", "Lactate", 1.5), ("05:00", "SaO2", 97)]
    return rows


def records(first: int, number: int) -> dict[int, str]:
    return {stay: record(stay, rows_of(stay)) for stay in range(first, first + number)}


def outcomes(stays: list[int]) -> str:
    lines = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    return "\n".join([*lines, *(f"{s},{s % 30},-1,-1,-1,{int(s % 3 == 0)}" for s in stays)]) + "\n"


def write(folder: Path, packed: bool = False, **sets: dict[int, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for letter, files in sets.items():
        (folder / f"Outcomes-{letter}.txt").write_text(outcomes(list(files)))
        if packed:
            with tarfile.open(folder / f"set-{letter}.tar.gz", "w:gz") as archive:
                for stay, text in reversed(files.items()):
                    about = tarfile.TarInfo(f"set-{letter}/{stay}.txt")
                    about.size = len(text)
                    archive.addfile(about, io.BytesIO(text.encode()))
        else:
            (folder / f"set-{letter}").mkdir(exist_ok=True)
            for stay, text in files.items():
                (folder / f"set-{letter}" / f"{stay}.txt").write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("raw"), a=records(100, 40), b=records(500, 20))


@pytest.fixture(scope="module")
def made(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare("physionet2012", raw, tmp_path_factory.mktemp("made") / "out")
    return next(tmp_path_factory.getbasetemp().glob("made*/out"))


def test_there_are_37_variables_in_ten_blocks_and_weight() -> None:
    assert len(VARIABLES) == 37
    blocks = [name for names in MODALITIES.values() for name in names]
    assert sorted([*blocks, "Weight"]) == [one.name for one in VARIABLES]


def test_every_stay_is_kept_and_sets_are_splits(made: Path) -> None:
    stays = pd.read_parquet(made / "stays.parquet").set_index("stay_id")
    assert stays.index.tolist() == [*range(100, 140), *range(500, 520)]
    assert (stays["label"] == (stays.index % 3 == 0)).all()
    assert (stays.loc[500:, "split"] == "test").all()
    assert set(stays.loc[:499, "split"]) == {"train", "validation"}
    dealt = splits.assign(range(100, 140), (0.85, 0.15, 0.0))
    assert stays.loc[:499, "split"].to_dict() == dealt
    assert stays["has_lactate"].tolist() == [stay % 2 == 1 for stay in stays.index]
    assert stays["has_gas"].tolist() == stays["has_lactate"].tolist()
    assert not stays["has_cardiac"].any()
    assert (stays[["has_series", "has_static", "has_vitals"]]).all(axis=None)
    assert (stays["age"] == 60).all()


def test_scores_are_beside_and_no_feature(made: Path) -> None:
    scores = pd.read_parquet(made / "scores.parquet")
    assert list(scores) == ["stay_id", "saps_i", "sofa"]
    assert scores["saps_i"].tolist() == [stay % 30 for stay in scores["stay_id"]]
    assert scores["sofa"].isna().all()
    about = json.loads((made / "manifest.json").read_text())
    assert "scores" not in about["modalities"]
    named = " ".join(str(facts.get("columns")) for facts in about["modalities"].values()).lower()
    assert not any(word in named for word in ("saps", "sofa", "length", "survival", "death"))


def test_features_of_a_block_by_hand(made: Path) -> None:
    lactate = pd.read_parquet(made / "lactate.parquet").set_index("stay_id").loc[101]
    values = {"first": 2.5, "last": 1.5, "min": 1.5, "max": 2.5, "mean": 2.0, "count": 2.0}
    assert lactate.to_dict() == {f"Lactate_{name}": value for name, value in values.items()}
    gas = pd.read_parquet(made / "gas.parquet").set_index("stay_id").loc[101]
    assert gas["SaO2_count"] == 1
    assert gas["pH_count"] == 0
    assert math.isnan(gas["pH_mean"])
    static = pd.read_parquet(made / "static.parquet").set_index("stay_id").loc[101]
    units = {f"ICUType={unit}": float(unit == 3) for unit in (1, 2, 3, 4)}
    assert static.drop("Height").to_dict() == {"Age": 60, "Gender": 1, "Weight": 80, **units}
    assert math.isnan(static["Height"])


def test_the_end_at_48_hours_is_inside_and_what_is_later_is_not(tmp_path: Path) -> None:
    files = records(100, 40)
    files[101] = record(101, [*rows_of(101), ("48:00", "HR", 120), ("48:01", "HR", 190)])
    prepare("physionet2012", write(tmp_path / "raw", a=files), tmp_path / "out")
    vitals = pd.read_parquet(tmp_path / "out" / "vitals.parquet").set_index("stay_id").loc[101]
    assert (vitals["HR_last"], vitals["HR_max"]) == (120, 120)
    events = pd.read_parquet(tmp_path / "out" / "events.parquet")
    assert events.loc[events["stay_id"] == 101, "hour"].max() == 48
    series = pd.read_parquet(tmp_path / "out" / "series.parquet")
    assert series["bin"].max() == 47
    own = series[(series["stay_id"] == 101) & (series["bin"] >= 46)]["HR"].tolist()
    assert own[1] > own[0]


def test_folders_and_archives_give_the_same_bytes(raw: Path, made: Path, tmp_path: Path) -> None:
    packed = write(tmp_path / "raw", packed=True, a=records(100, 40), b=records(500, 20))
    prepare("physionet2012", packed, tmp_path / "packed")
    assert contents(tmp_path / "packed") == contents(made)
    prepare("physionet2012", raw, tmp_path / "again")
    assert (tmp_path / "again" / MANIFEST).read_bytes() == (made / MANIFEST).read_bytes()


def test_one_set_is_split_in_three_and_a_third_set_is_a_test_too(tmp_path: Path) -> None:
    prepare("physionet2012", write(tmp_path / "one", a=records(100, 60)), tmp_path / "alone")
    alone = pd.read_parquet(tmp_path / "alone" / "stays.parquet")
    assert set(alone["split"]) == {"train", "validation", "test"}
    three = write(tmp_path / "three", a=records(100, 40), b=records(500, 9), c=records(800, 9))
    prepare("physionet2012", three, tmp_path / "out")
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet").set_index("stay_id")
    assert (stays.loc[500:, "split"] == "test").all()
    assert len(stays.loc[800:]) == 9


def test_values_that_are_negative_or_no_number_are_left_out_and_counted(tmp_path: Path) -> None:
    files = records(100, 40)
    files[102] = record(102, [("01:00", "HR", -1), ("02:00", "HR", "high"), ("03:00", "HR", 61)])
    about = prepare("physionet2012", write(tmp_path / "raw", a=files), tmp_path / "out")
    assert about["measurements_left_out"]["HR"] == {"negative": 1}
    assert about["measurements_left_out"]["Height"] == {"negative": 40}
    assert about["unreadable"] == {"records.value": 1}
    vitals = pd.read_parquet(tmp_path / "out" / "vitals.parquet").set_index("stay_id").loc[102]
    assert (vitals["HR_first"], vitals["HR_count"]) == (61, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "Outcomes-a.txt").unlink(), "no set-a"),
        (lambda raw: (raw / "set-a" / "101.txt").unlink(), "1 stays have an outcome but no record"),
        (lambda raw: (raw / "set-a" / "7.txt").write_text("Time\n"), "begins with the line"),
        (
            lambda raw: (raw / "set-a" / "101.txt").write_text(record(101, [("7", "HR", 71345)])),
            "times must read",
        ),
        (
            lambda raw: (raw / "Outcomes-a.txt").write_text("RecordID,SOFA\n1,71345\n"),
            "lacks column",
        ),
    ],
)
def test_faults_are_named_and_quote_no_value(tmp_path: Path, spoil, message: str) -> None:
    raw = write(tmp_path / "raw", a=records(100, 5))
    spoil(raw)
    with pytest.raises((TableError, MissingError), match=message) as stop:
        prepare("physionet2012", raw, tmp_path / "out")
    assert "71345" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_tasks_and_windows_that_the_files_do_not_tell_are_refused(
    raw: Path, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match="not readmission"):
        prepare("physionet2012", raw, tmp_path / "out", Options(task="readmission"))
    with pytest.raises(TableError, match="end after 48 h"):
        prepare("physionet2012", raw, tmp_path / "out", Options(hours=72))


def test_the_reader_hands_out_every_modality(made: Path) -> None:
    names = ["static", "vitals", "lactate", "series"]
    data = Prepared(made, modalities=names, split="test")
    batch = data[[0, 1]]
    assert batch.present.tolist() == [[True, True, False, True], [True, True, True, True]]
    assert batch.inputs["series"].values.shape == (2, 48, 2 * 37)


@pytest.fixture(scope="module")
def real(dataset: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "out"
    prepare("physionet2012", dataset("physionet2012"), out)
    return out


HAS = {
    "series": 7991, "static": 8000, "vitals": 7872, "arterial": 5615, "neuro": 7871, "gas": 6462,
    "chemistry": 7881, "blood": 7878, "liver": 4183, "lactate": 4398, "cardiac": 2500,
    "urine": 7787,
}  # fmt: skip


def test_counts_of_the_real_sets(real: Path) -> None:
    about = json.loads((real / "manifest.json").read_text())
    parts = about["counts"]["stays"]
    assert {name: part["stays"] for name, part in parts.items()} == {
        "train": 3396,
        "validation": 604,
        "test": 4000,
    }
    assert parts["train"]["positive"] + parts["validation"]["positive"] == 554
    assert parts["test"]["positive"] == 568
    assert {name: facts["stays"] for name, facts in about["modalities"].items()} == HAS
    assert about["counts"]["events"] == 3_252_997
    assert about["synthetic"] is False


def test_features_of_real_stays_against_a_plain_loop(
    real: Path, dataset: Callable[[str], Path]
) -> None:
    frames = {
        name: pd.read_parquet(real / f"{name}.parquet").set_index("stay_id") for name in MODALITIES
    }
    read = 0
    with tarfile.open(dataset("physionet2012") / "set-b.tar.gz") as archive:
        for member in archive:
            if not member.isfile() or read == 25:
                continue
            read += 1
            stay = int(Path(member.name).stem)
            pairs: dict[str, list[tuple[str, float]]] = {}
            for line in archive.extractfile(member).read().decode().splitlines()[1:]:
                time, name, value = line.split(",")
                if float(value) >= 0:
                    pairs.setdefault(name, []).append((time, float(value)))
            # Of values of one minute the greatest comes last, as everywhere.
            values = {name: [v for _, v in sorted(own)] for name, own in pairs.items()}
            for block, names in MODALITIES.items():
                there = any(name in values for name in names)
                assert there == (stay in frames[block].index)
                if not there:
                    continue
                row = frames[block].loc[stay]
                for name in names:
                    own = values.get(name, [])
                    assert row[f"{name}_count"] == len(own)
                    wanted = [own[0], own[-1], min(own), max(own), np.mean(own)] if own else []
                    found = [row[f"{name}_{measure}"] for measure in MEASURES[:5]]
                    if own:
                        assert found == pytest.approx(wanted, rel=1e-12)
                    else:
                        assert np.isnan(found).all()
    assert read == 25
