"""Notes, reports and X-rays on Spark: the same files as on DuckDB, to the byte."""

import ibis
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2.clinical.prepare import images, notes, reports
from cm2.clinical.prepare.engine import start

INTIME = pd.Timestamp("2100-01-01 10:00:00")


def write_tables(folder, rng: np.random.Generator, stays: int = 30) -> None:
    """Documents and images of random times around the window, some broken, some alike."""
    ids = np.arange(1, stays + 1)
    frame = {"stay_id": ids, "subject_id": 10 * ids, "hadm_id": 100 * ids, "intime": INTIME}
    pd.DataFrame(frame).to_parquet(folder / "stays.parquet")
    n = 20 * stays
    who = rng.integers(1, stays + 2, n)
    documents = pd.DataFrame(
        {
            "subject_id": 10 * who,
            "hadm_id": pd.array(np.where(rng.random(n) < 0.2, None, 100 * who), "Int64"),
            "note_id": [f"n{i:05}" for i in range(n)],
            "charttime": INTIME + pd.to_timedelta(rng.integers(-20, 60, n), unit="h"),
            "category": rng.choice(["Nursing", "Radiology", "Discharge summary"], n),
            "text": rng.choice(
                ["seen [**2100-1-1**]\n\tby [**Name (NI)\n7**]", "FINDINGS: a\\b\n IMPRESSION: ü"],
                n,
            ),
            "error": rng.random(n) < 0.1,
        }
    )
    documents["text"] += rng.choice(["", " x", " y", " z"], n)
    documents.loc[::17, "charttime"] = pd.NaT
    documents.to_parquet(folder / "documents.parquet")
    (folder / "files").mkdir()
    Image.fromarray(rng.integers(0, 256, (300, 300), np.uint8)).save(folder / "files" / "x.png")
    metadata = pd.DataFrame(
        {
            "subject_id": [str(10 * i) for i in who],
            "study_id": [str(i) for i in range(n)],
            "dicom_id": [f"d{i}" for i in range(n)],
            "viewposition": rng.choice(["AP", "PA", "LATERAL", None], n),
            "studydate": rng.choice(["21000101", "21000102", "21000103", "21001301"], n),
            "studytime": rng.choice(["93014.5", "5.0", "213014", "250000.0", "100000.000"], n),
        }
    )
    metadata.to_parquet(folder / "metadata.parquet")
    labels = pd.DataFrame({"study_id": metadata["study_id"], "Edema": "1.0"})
    labels[::2].to_parquet(folder / "labels.parquet")


@pytest.mark.slow
# PySpark 4.3 calls what pandas 3 has renamed.
@pytest.mark.filterwarnings("ignore")
def test_spark_writes_the_same_files(tmp_path) -> None:
    write_tables(tmp_path, np.random.default_rng(0))
    made = {}
    for name in ("duckdb", "spark"):
        out = tmp_path / name
        (out / "work").mkdir(parents=True)
        engine = start(name, folder=out / "work")
        try:
            stays, documents, metadata, labels = (
                engine.read(tmp_path / f"{table}.parquet")
                for table in ("stays", "documents", "metadata", "labels")
            )
            taken = images.studies(metadata, labels)
            taken = taken.mutate(path=ibis.literal("files/x.png"))
            counts = [
                notes.write_notes(engine, stays, documents, out / "notes.parquet"),
                notes.write_notes(
                    engine, stays, documents, out / "last.parquet", selection="reference"
                ),
                reports.write_reports(engine, stays, documents, out / "reports.parquet"),
                images.write_images(engine, stays, taken, tmp_path, out),
            ]
        finally:
            engine.close()
        files = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        made[name] = counts, files
    assert made["duckdb"][0] == made["spark"][0]
    assert made["duckdb"][1] == made["spark"][1]
    assert all(found["written"] > 10 for found in made["spark"][0])
