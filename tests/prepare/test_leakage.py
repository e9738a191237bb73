"""What happens after the prediction time changes no feature, in any source and for any task.

Every case has rows that happened in time, and two futures. They differ in each row from the end of
the window on, and in all that an outcome is made of: `OUTCOMES` says where that may be seen.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import meds_demo
import raw_eicu
import raw_mimic3
from cm2.prepare.collection import COLLECTIONS
from cm2.prepare.eicu_columns import STAY
from cm2.prepare.eicu_source import PERIODIC
from cm2.prepare.images import CHEXPERT
from cm2.prepare.labels import READMISSIONS
from cm2.prepare.mimic4 import CHEXPERT as LABELS
from cm2.prepare.mimic4 import METADATA
from cm2.prepare.options import Options
from cm2.prepare.physionet2012 import MODALITIES
from cm2.prepare.pipeline import prepare
from cm2.prepare.source import SOURCES
from cm2.synthesize.diagnoses import GROUPS, write_groups

HOURS = 24
START = raw_mimic3.START
END = START + pd.Timedelta(hours=HOURS)
SUBJECTS = np.arange(10_000_001, 10_000_009)

OUTCOMES = {
    "in-hospital-mortality": {"label"},
    "readmission": {"label"},
    "length-of-stay": {"label", "remaining_hours"},
    "phenotyping": {"label_*"},
    "none": set(),
}
"""What of `stays.parquet` is by definition about the time after the prediction: a death, a return,
the rest of the stay, the codes of the whole admission."""

Frames = dict[str, pd.DataFrame]


class Timed(NamedTuple):
    """How the late rows of a table are written.

    Attributes:
        times: Its columns of time, that of the event first, that of its entry last.
        other: What the rows of another future say in the place of what those in time do.
    """

    times: tuple[str, ...]
    other: dict[str, Any]


class Case(NamedTuple):
    """A tiny raw data set.

    Attributes:
        frames: What was known in time, and the outcomes.
        late: Its tables with times.
        write: Writes a folder, and returns further arguments of `prepare`.
        ends: Gives the outcomes another end; of a task, since a cohort may be of survivors.
        end: The prediction time, as the columns of time have it.
        hour: An hour of theirs.
        timeless: Features that are of no dated row.
        options: Of `prepare`.
    """

    frames: Callable[[], Frames]
    late: Mapping[str, Timed]
    write: Callable[[Path, Frames], dict[str, Any]]
    ends: Callable[[Frames, Options], Frames]
    end: Any = END
    hour: Any = pd.Timedelta(hours=1)
    timeless: frozenset[str] = frozenset()
    options: Mapping[str, Any] = {}


# MIMIC


def happened(times: tuple[str, ...] = ("charttime", "storetime"), **said: object) -> pd.DataFrame:
    """A row an hour and stay, in the fourth and the ninth hour, entered five minutes later."""
    rows = pd.DataFrame({"subject_id": SUBJECTS.repeat(2)})
    rows = rows.assign(hadm_id=rows["subject_id"] + 10, stay_id=rows["subject_id"] + 20)
    rows = rows.assign(row_id=range(len(rows)), **said)
    since = pd.to_timedelta(np.tile([4, 9], len(SUBJECTS)), unit="h")
    minutes = pd.Timedelta(minutes=5)
    return rows.assign(**{name: START + since + k * minutes for k, name in enumerate(times)})


def numbers(item: int, first: float) -> dict[str, object]:
    """The columns of a measurement whose value grows from row to row."""
    values = first + np.arange(2 * len(SUBJECTS))
    return {"itemid": item, "value": values, "valuenum": values, "valueuom": "", "error": 0}


def mimic() -> Frames:
    """What both versions have: patients who live, one stay each, coded."""
    stays = tuple(raw_mimic3.Stay(int(k), int(k) + 10, int(k) + 20) for k in SUBJECTS)
    made = {name.lower(): table.rename(columns=str.lower)
            for name, table in raw_mimic3.tables(stays).items()}  # fmt: skip
    made["patients"] = made["patients"].assign(
        anchor_age=50, anchor_year=2150, anchor_year_group="2008 - 2010"
    )
    made["icustays"]["stay_id"] = made["icustays"]["icustay_id"]
    codes = {"icd9_code": "99591", "icd_code": "99591", "icd_version": 9}
    return made | {"diagnoses_icd": pd.DataFrame({"hadm_id": SUBJECTS + 10}).assign(**codes)}


def mimic3() -> Frames:
    return mimic() | {
        "chartevents": happened(**numbers(211, 60)).rename(columns={"stay_id": "icustay_id"}),
        "labevents": happened(("charttime",), **numbers(50931, 90)),
        "noteevents": happened(
            category="Nursing", iserror=None, text=[f"Text {k}." for k in range(2 * len(SUBJECTS))]
        ),
    }


FILM = "EXAMINATION: CHEST (PORTABLE AP)\n\nFINDINGS: Clear {0}.\n\nIMPRESSION: Normal {0}.\n"


def mimic4() -> Frames:
    number = range(2 * len(SUBJECTS))
    studies = happened(("time",), viewposition="AP", study_id=number)
    return mimic() | {
        "chartevents": happened(**numbers(220045, 60)),
        "labevents": happened(**numbers(50931, 90)),
        "radiology": happened(text=[FILM.format(k) for k in number]).assign(
            note_id=[f"note-{k:02}" for k in number]
        ),
        METADATA: studies.assign(dicom_id=[f"image-{k:02}" for k in number]),
    }


def write_csv(folder: Path, frames: Frames) -> dict[str, Any]:
    folder.mkdir(parents=True)
    for name, table in frames.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    write_groups(folder, [9])
    return {}


def write_pictures(folder: Path, frames: Frames) -> dict[str, Any]:
    """A picture, CheXpert's labels and a report of each row of the metadata; no two are alike."""
    taken = frames[METADATA].assign(study_id=range(50_000_000, 50_000_000 + len(frames[METADATA])))
    time = taken["time"].dt
    taken = taken.assign(studydate=time.strftime("%Y%m%d"), studytime=time.strftime("%H%M%S.000"))
    told = pd.DataFrame({"study_id": taken["study_id"]})
    told = told.assign(**{name.replace("_", " "): told["study_id"] % 2 for name in CHEXPERT})
    write_csv(folder, frames | {METADATA: taken.drop(columns="time"), LABELS: told})
    for row in taken.itertuples():
        study = folder / "cxr" / "files" / "p10" / f"p{row.subject_id}" / f"s{row.study_id}"
        study.mkdir(parents=True)
        content = sum(map(ord, row.dicom_id)) % 256
        Image.fromarray(np.full((8, 8), content, np.uint8)).save(study / f"{row.dicom_id}.jpg")
    return {}


def mimic_ends(frames: Frames, options: Options) -> Frames:
    """Every other patient dies, all stay longer, some come back for an hour, with other codes."""
    stays, admissions = frames["icustays"], frames["admissions"]
    back = stays.iloc[1::2].assign(
        hadm_id=lambda rows: rows["hadm_id"] + 500, stay_id=lambda rows: rows["stay_id"] + 500
    )
    back = back.assign(
        icustay_id=back["stay_id"],
        intime=back["intime"] + pd.Timedelta(days=20),
        outtime=back["intime"] + pd.Timedelta(days=20, hours=1),
    )
    stays = stays.assign(outtime=stays["outtime"] + pd.Timedelta(hours=77))
    again = admissions.iloc[1::2].assign(
        hadm_id=back["hadm_id"].to_numpy(), admittime=back["intime"].to_numpy()
    )
    ended = admissions.assign(dischtime=stays["outtime"])
    if options.task != "readmission" or options.readmission != "survivors":
        died = np.arange(len(ended)) % 2 == 0
        ended = ended.assign(
            hospital_expire_flag=died.astype(int), deathtime=ended["dischtime"].where(died)
        )
    codes = {"icd9_code": "486", "icd_code": "486"}
    return frames | {
        "icustays": pd.concat([stays, back]),
        "admissions": pd.concat([ended, again]),
        "diagnoses_icd": frames["diagnoses_icd"].assign(**codes),
    }


# eICU

NOTED = "notes/Progress Notes/"
EXAMINED = f"{raw_eicu.EXAM}Neurologic/GCS/Motor Score/1"


def eicu() -> Frames:
    made = raw_eicu.tables(bare=1)
    number = np.arange(len(made["patient"]))
    made["patient"] = made["patient"].assign(
        uniquepid=[f"002-{k}" for k in number], patienthealthsystemstayid=number, hospitalid=60,
        hospitaldischargeoffset=4000, unitdischargeoffset=3000, hospitaldischargestatus="Alive",
    )  # fmt: skip
    seen = made["vitalaperiodic"][[STAY]]
    minute = made["vitalaperiodic"]["observationoffset"]
    made["vitalperiodic"] = seen.assign(
        observationoffset=minute, **(dict.fromkeys(PERIODIC, 70.0) | {"temperature": 36.5})
    )
    made["lab"] = seen.assign(
        labresultoffset=minute, labresultrevisedoffset=minute + 5, labname="glucose",
        labresult=minute / 10 + 90, labmeasurenamesystem="mg/dL",
    )  # fmt: skip
    made["nursecharting"] = seen.assign(
        nursingchartoffset=minute, nursingchartentryoffset=minute + 5,
        nursingchartcelltypevallabel="Heart Rate", nursingchartcelltypevalname="Heart Rate",
        nursingchartvalue=minute % 50 + 60,
    )  # fmt: skip
    return made


EICU = {
    "vitalaperiodic": Timed(("observationoffset",), {"noninvasivemean": 55}),
    "vitalperiodic": Timed(("observationoffset",), dict.fromkeys(PERIODIC, 44.0)),
    "lab": Timed(("labresultoffset", "labresultrevisedoffset"), {"labresult": 333.0}),
    "nursecharting": Timed(
        ("nursingchartoffset", "nursingchartentryoffset"), {"nursingchartvalue": 133}
    ),
    "respiratorycharting": Timed(
        ("respchartoffset", "respchartentryoffset"), {"respchartvalue": 77}
    ),
    "intakeoutput": Timed(
        ("intakeoutputoffset", "intakeoutputentryoffset"), {"cellvaluenumeric": 999}
    ),
    "physicalexam": Timed(
        ("physicalexamoffset",), {"physicalexampath": EXAMINED, "physicalexamtext": 1}
    ),
    "note": Timed(
        ("noteoffset", "noteenteredoffset"), {"notepath": f"{raw_eicu.NOTE}Major/Later"}
    ),
    "pasthistory": Timed(
        ("pasthistoryoffset", "pasthistoryenteredoffset"), {"pasthistorypath": f"{NOTED}Later"}
    ),
    "diagnosis": Timed(("diagnosisoffset",), {"diagnosisstring": "neurologic|later"}),
    "treatment": Timed(
        ("treatmentoffset",), {"treatmentstring": "renal|dialysis|hemodialysis"}
    ),
    "medication": Timed(("drugstartoffset", "drugorderoffset"), {"drugname": "PROPOFOL"}),
    "infusiondrug": Timed(("infusionoffset",), {"drugname": "Vasopressin (units/min)"}),
    "admissiondrug": Timed(("drugoffset", "drugenteredoffset"), {"drugname": "LATER"}),
    "respiratorycare": Timed(
        ("respcarestatusoffset", "ventstartoffset"), {"airwaytype": "Tracheostomy"}
    ),
    "admissiondx": Timed(
        ("admitdxenteredoffset",),
        {"admitdxpath": "admission diagnosis|Organ System|Cardiovascular"},
    ),
}  # fmt: skip


def eicu_ends(frames: Frames, options: Options) -> Frames:
    made = {name: table.copy() for name, table in frames.items()}
    for name, columns in raw_eicu.OUTCOMES.items():
        # The year is a group to split by.
        for column in set(columns) - {"hospitaldischargeyear"}:
            made[name][column] = 99
    patient = made["patient"]
    made["patient"] = patient.assign(
        hospitaldischargestatus="Expired", unitdischargeoffset=9000, hospitaldischargeoffset=9500
    )
    return made


def write_eicu(folder: Path, frames: Frames) -> dict[str, Any]:
    raw_eicu.write(folder, frames)
    return {}


# PhysioNet 2012, MEDS, own tables


BLOCKS = [names[0] for names in MODALITIES.values()]
"""A variable of each modality."""


def physionet() -> Frames:
    rows = happened(()).assign(minute=np.tile([240, 540], len(SUBJECTS)))
    rows["value"] = rows["row_id"] + 60
    outcomes = pd.DataFrame({"RecordID": SUBJECTS, "SAPS-I": 9, "SOFA": 4, "Length_of_stay": 5,
                             "Survival": -1, "In-hospital_death": 0})  # fmt: skip
    return dict.fromkeys(BLOCKS, rows) | {"outcomes": outcomes}


def write_physionet(folder: Path, frames: Frames) -> dict[str, Any]:
    (folder / "set-a").mkdir(parents=True)
    every = pd.concat([frames[name].assign(name=name) for name in BLOCKS])
    for stay, rows in every.groupby("subject_id"):
        lines = ["Time,Parameter,Value", f"00:00,RecordID,{stay}", "00:00,Age,60", "00:00,Gender,1"]
        lines += [
            f"{row.minute // 60:02}:{row.minute % 60:02},{row.name},{row.value}"
            for row in rows.itertuples(index=False)
        ]
        (folder / "set-a" / f"{stay}.txt").write_text("\n".join(lines) + "\n")
    frames["outcomes"].to_csv(folder / "Outcomes-a.txt", index=False)
    return {}


def physionet_ends(frames: Frames, options: Options) -> Frames:
    ended = {"In-hospital_death": 1, "Length_of_stay": 30, "Survival": 29}
    return frames | {"outcomes": frames["outcomes"].assign(**ended)}


def meds() -> Frames:
    events = happened(("time",), code="HR", numeric_value=numbers(0, 60)["value"])
    labels = {"prediction_time": END, "boolean_value": False}
    return {"data": events, "labels": pd.DataFrame({"subject_id": SUBJECTS}).assign(**labels)}


def write_meds(folder: Path, frames: Frames) -> dict[str, Any]:
    meds_demo.write(frames["data"].sort_values(["subject_id", "time"]), folder, shards=2)
    frames["labels"].to_parquet(folder / "labels.parquet")
    (folder / "codes.csv").write_text("code,variable,unit\nHR,heart_rate,/min\n")
    return {"labels": folder / "labels.parquet", "codes": folder / "codes.csv"}


def meds_ends(frames: Frames, options: Options) -> Frames:
    dead = frames["data"].iloc[::2].assign(code="MEDS_DEATH", time=END + pd.Timedelta(hours=30))
    told = frames["labels"].assign(boolean_value=True)
    return {"data": pd.concat([frames["data"], dead]), "labels": told}


def own() -> Frames:
    events = happened(("charted",), name="hr", number=numbers(0, 60)["value"])
    return {"events": events, "stays": mimic()["icustays"].assign(died=0)}


def own_ends(frames: Frames, options: Options) -> Frames:
    return frames | {"stays": frames["stays"].assign(died=1)}


OWN = {
    "samples": {"file": "stays.csv", "id": "stay_id", "label": "died", "start": "intime"},
    "events": {
        "file": "events.csv", "id": "stay_id", "variable": "name", "time": "charted",
        "value": "number",
    },
}  # fmt: skip

TIMES = ("charttime", "storetime")
VALUE = {"value": 88, "valuenum": 88}
MIMIC4 = {
    "chartevents": Timed(TIMES, VALUE),
    "labevents": Timed(TIMES, VALUE),
    "radiology": Timed(TIMES, {"text": FILM.format("later"), "note_id": "z"}),
    METADATA: Timed(("time",), {"dicom_id": "later"}),
}
CASES = {
    "mimic3": Case(
        mimic3,
        {
            "chartevents": Timed(TIMES, VALUE),
            "labevents": Timed(TIMES[:1], VALUE),
            "noteevents": Timed(TIMES, {"text": "Said later."}),
        },
        write_csv,
        mimic_ends,
    ),
    "mimic4": Case(mimic4, MIMIC4, write_pictures, mimic_ends),
    "eicu": Case(eicu, EICU, write_eicu, eicu_ends, HOURS * 60, 60, frozenset({"apache.parquet"})),
    "physionet2012": Case(
        physionet,
        dict.fromkeys(BLOCKS, Timed(("minute",), {"value": 7.5})),
        write_physionet,
        physionet_ends,
        HOURS * 60,
        60,
        frozenset({"static.parquet", "scores.parquet"}),
    ),
    "meds": Case(meds, {"data": Timed(("time",), {"numeric_value": 88.0})}, write_meds, meds_ends),
    "table": Case(
        own,
        {"events": Timed(("charted",), {"number": 88.0})},
        write_csv,
        own_ends,
        options={"table": OWN},
    ),
}


def tasks(name: str) -> Iterator[dict[str, Any]]:
    """The options of each task that a source tells; without an outcome, by entry too."""
    kind = COLLECTIONS[name] if name in COLLECTIONS else SOURCES[name]
    entered = any(len(one.times) > 1 for one in CASES[name].late.values())
    for task in kind.tasks:
        if task == "readmission":
            yield from ({"task": task, "readmission": one} for one in READMISSIONS)
        elif task == "none" and entered:
            yield {"task": task, "known_by": "storetime"}
        else:
            yield {"task": task}


def at(rows: pd.DataFrame, times: tuple[str, ...], moment: Any) -> pd.DataFrame:
    return rows.assign(**dict.fromkeys(times, moment))


def another(case: Case, options: Options) -> Frames:
    """Another future: later rows are others, and more of them, and all ends otherwise."""
    made = case.ends(case.frames(), options)
    for name, (times, other) in case.late.items():
        rows = made[name].assign(**other)
        late = [at(rows, times, case.end + k * case.hour) for k in (0, 1, 23)]
        if options.known_by == "storetime" and len(times) > 1:
            late.append(at(rows, times[-1:], case.end))
        made[name] = pd.concat([made[name], *late], ignore_index=True)
    return made


def usual(case: Case) -> Frames:
    """The future in which what was said in time is said again."""
    made = case.frames()
    for name, (times, _) in case.late.items():
        late = at(made[name], times, case.end + case.hour)
        made[name] = pd.concat([made[name], late], ignore_index=True)
    return made


class Made(NamedTuple):
    """A prepared folder: stays, the bytes of the features, and what the manifest says of them."""

    stays: pd.DataFrame
    files: dict[str, bytes]
    facts: dict[str, Any]


def make(name: str, frames: Frames, folder: Path, options: Options) -> Made:
    raw, out = folder / "raw", folder / "out"
    given = CASES[name].write(raw, frames)
    ccs = [raw / GROUPS[9]] if options.task == "phenotyping" else []
    about = prepare(name, raw, out, options, ccs=ccs, **given)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    del files["manifest.json"], files["stays.parquet"]
    return Made(pd.read_parquet(out / "stays.parquet"), files, about["modalities"])


def chosen(name: str, **options: Any) -> Options:
    return Options(hours=HOURS, **CASES[name].options, **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """What is made of the usual future, once for each case."""
    made: dict[str, Made] = {}

    def of(name: str) -> Made:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = make(name, usual(CASES[name]), folder, chosen(name))
        return made[name]

    return of


def test_every_source_and_task_is_here() -> None:
    assert set(CASES) == {*SOURCES, *COLLECTIONS}
    assert {options["task"] for name in CASES for options in tasks(name)} == set(OUTCOMES)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        pytest.param(name, task, id="-".join([name, *task.values()]))
        for name in CASES
        for task in tasks(name)
    ],
)
def test_the_future_changes_nothing(
    name: str, task: dict[str, Any], plain: Callable[[str], Made], tmp_path: Path
) -> None:
    options = chosen(name, **task)
    found = make(name, another(CASES[name], options), tmp_path, options)
    known = plain(name)
    assert len(known.stays) > 5
    assert found.files == known.files
    assert found.facts == known.facts
    told = [pd.Index(one.stays.columns) for one in (found, known)]
    outcome = {column for column in told[0].union(told[1]) if column.startswith("label_")}
    outcome = outcome if "label_*" in OUTCOMES[options.task] else set()
    outcome |= OUTCOMES[options.task] | {"label"}
    ours, theirs = (
        one.stays.drop(columns=list(outcome), errors="ignore") for one in (found, known)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize("name", CASES)
def test_a_row_that_moves_into_the_window_is_seen(
    name: str, plain: Callable[[str], Made], tmp_path: Path
) -> None:
    """The law can fail: the row that must not count at the end counts a minute before it."""
    case, options = CASES[name], chosen(name)
    made = another(case, options)
    for table, (times, _) in case.late.items():
        late = made[table].index[made[table][times[0]] == case.end]
        made[table].loc[late[:1], list(times)] = case.end - case.hour // 60
    found, known = make(name, made, tmp_path, options).files, plain(name).files
    same = {name for name in known if found[name] == known[name]}
    assert {name for name in same if name.endswith((".parquet", ".npy"))} == case.timeless
