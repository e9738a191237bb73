"""The MIMIC-IV demo as MEDS, in the form of the public converter: `LAB//ITEMID//UNIT` and so on.

Nothing of `cm2` is used: what reads MEDS is compared with what reads the raw tables.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    {
        "subject_id": pa.int64(),
        "time": pa.timestamp("us"),
        "code": pa.string(),
        "numeric_value": pa.float32(),
        "text_value": pa.string(),
        "hadm_id": pa.int64(),
    }
)
HOURS = 48


def read(path: Path, columns: list[str], times: list[str]) -> pd.DataFrame:
    options = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(times, pa.timestamp("us")) | {"value": pa.string()},
        null_values=[""],
        strings_can_be_null=True,
    )
    quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(path, parse_options=quoted, convert_options=options).to_pandas()


def cohort(demo: Path) -> pd.DataFrame:
    """Adults' stays without transfer, the only such one of their admission, of 48 h and more."""
    names = ["subject_id", "hadm_id", "first_careunit", "last_careunit", "intime", "outtime"]
    stays = read(demo / "icu" / "icustays.csv.gz", [*names, "stay_id"], ["intime", "outtime"])
    stays = stays[stays["first_careunit"] == stays["last_careunit"]]
    stays = stays[~stays["hadm_id"].duplicated(keep=False)]
    stays = stays[stays["outtime"] - stays["intime"] >= pd.Timedelta(hours=HOURS)]
    flags = ["hadm_id", "hospital_expire_flag"]
    return stays.merge(read(demo / "hosp" / "admissions.csv.gz", flags, []), on="hadm_id")


def labels(demo: Path) -> pd.DataFrame:
    """As ACES writes them: nothing but subject, time and truth."""
    stays = cohort(demo)
    return pd.DataFrame(
        {
            "subject_id": stays["subject_id"],
            "prediction_time": stays["intime"] + pd.Timedelta(hours=HOURS),
            "boolean_value": stays["hospital_expire_flag"] == 1,
        }
    )


def events(demo: Path) -> pd.DataFrame:
    """Births, chart and laboratory."""
    names = ["subject_id", "anchor_age", "anchor_year"]
    born = read(demo / "hosp" / "patients.csv.gz", names, [])
    year = (born["anchor_year"] - born["anchor_age"]).astype(str)
    parts = [born[["subject_id"]].assign(time=pd.to_datetime(year, format="%Y"), code="MEDS_BIRTH")]
    for table in ("icu/chartevents", "hosp/labevents"):
        measured = ["itemid", "charttime", "value", "valuenum", "valueuom"]
        rows = read(demo / f"{table}.csv.gz", ["subject_id", "hadm_id", *measured], ["charttime"])
        item, unit = rows["itemid"].astype(str), rows["valueuom"].fillna("UNK")
        parts.append(
            pd.DataFrame(
                {
                    "subject_id": rows["subject_id"],
                    "time": rows["charttime"],
                    "code": "LAB//" + item + "//" + unit,
                    "numeric_value": rows["valuenum"],
                    "text_value": rows["value"],
                    "hadm_id": rows["hadm_id"],
                }
            )
        )
    every = pd.concat(parts, ignore_index=True)
    return every.sort_values(["subject_id", "time"], kind="stable", ignore_index=True)


def write(events: pd.DataFrame, out: Path, shards: int = 3) -> Path:
    """Writes shards of subjects below `data`."""
    (out / "data" / "all").mkdir(parents=True)
    for number in range(shards):
        own = events[events["subject_id"] % shards == number].reindex(columns=SCHEMA.names)
        table = pa.Table.from_pandas(own, schema=SCHEMA, preserve_index=False)
        pq.write_table(table, out / "data" / "all" / f"{number}.parquet")
    return out
