"""What happens after the prediction time changes no feature, in any source and for any task.

Every case has rows that happened in time, and two futures. They differ in each row from the end of
the window on, and in all that an outcome is made of. The one column that this may change is the
outcome itself: each case says exactly what it is, stay by stay.
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
from cm2.clinical.prepare.collection import COLLECTIONS
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_columns import TIMES as KNOWN
from cm2.clinical.prepare.eicu_source import PERIODIC
from cm2.clinical.prepare.images import CHEXPERT
from cm2.clinical.prepare.labels import READMISSIONS
from cm2.clinical.prepare.mimic4 import CHEXPERT as LABELS
from cm2.clinical.prepare.mimic4 import METADATA
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.phenotypes import PHENOTYPES
from cm2.clinical.prepare.physionet2012 import MODALITIES
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.source import SOURCES
from cm2.clinical.synthesize.diagnoses import GROUPS, write_groups

HOURS = 24
START = raw_mimic3.START
END = START + pd.Timedelta(hours=HOURS)
SUBJECTS = np.arange(10_000_001, 10_000_009)

HALF = [1, 0] * 4
"""The label of a case whose every other stay ends badly."""

Frames = dict[str, pd.DataFrame]


class Timed(NamedTuple):
    """How the late rows of a table are written.

    Attributes:
        times: Its columns of time, that of the event first, that of its entry last.
        other: What the rows of another future say in the place of what those in time do.
        new: What further rows of it say, of a kind that is not among those in time.
        early: Whether rows from before the window count as little as late ones.
    """

    times: tuple[str, ...]
    other: dict[str, Any]
    new: tuple[dict[str, Any], ...] = ()
    early: bool = False


class Case(NamedTuple):
    """A tiny raw data set.

    Attributes:
        frames: What was known in time, and the outcomes.
        late: Its tables with times.
        write: Writes a folder, and returns further arguments of `prepare`.
        ends: Gives the outcomes another end; of a task, since a cohort may be of survivors.
        outcomes: The columns of `stays.parquet` that are about the time after the prediction, by
            task or definition of readmission: what the other end makes of them.
        end: The prediction time, as the columns of time have it.
        hour: An hour of theirs.
        timeless: Features that are of no dated row.
        options: Of `prepare`.
    """

    frames: Callable[[], Frames]
    late: Mapping[str, Timed]
    write: Callable[[Path, Frames], dict[str, Any]]
    ends: Callable[[Frames, Options], Frames]
    outcomes: Mapping[str, Mapping[str, list[Any]]]
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


COMA = {220739: "To Speech", 223900: "Confused", 223901: "Obeys Commands"}
"""Parts of the coma scale, of one charttime in one total."""


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
        "chartevents": pd.concat(
            [happened(**numbers(220045, 60))]
            + [
                happened(**numbers(item, 0) | {"value": word, "valuenum": None})
                for item, word in COMA.items()
            ]
        ),
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
        ended = ended.assign(
            hospital_expire_flag=HALF, deathtime=ended["dischtime"].where(np.array(HALF) == 1)
        )
    codes = {"icd9_code": "486", "icd_code": "486"}
    return frames | {
        "icustays": pd.concat([stays, back]),
        "admissions": pd.concat([ended, again]),
        "diagnoses_icd": frames["diagnoses_icd"].assign(**codes),
    }


LONGER = {"label": [5] * 8, "remaining_hours": [125.0] * 8}
MIMIC_OUTCOMES = {
    "in-hospital-mortality": {"label": HALF},
    "survivors": {"label": [0, 1] * 4},
    "or-death": {"label": [1] * 8},
    "length-of-stay": LONGER,
    "phenotyping": {"label": [None] * 8}
    | {f"label_{name}": [int(name == "pneumonia")] * 8 for name in PHENOTYPES},
}
"""Half of the patients die, the others come back; all stay 77 hours more, with pneumonia."""


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
    ends = np.where(np.arange(len(patient)) % 2, "Alive", "Expired")
    made["patient"] = patient.assign(
        hospitaldischargestatus=ends, unitdischargeoffset=9000, hospitaldischargeoffset=9500
    )
    return made


EICU_OUTCOMES = {
    "in-hospital-mortality": {"label": [1, 0] * 5},
    "length-of-stay": {"label": [5] * 10, "remaining_hours": [126.0] * 10},
}


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
    ended = {"In-hospital_death": HALF, "Length_of_stay": 30, "Survival": 29}
    return frames | {"outcomes": frames["outcomes"].assign(**ended)}


def meds() -> Frames:
    events = happened(("time",), code="HR", numeric_value=numbers(0, 60)["value"])
    labels = {"prediction_time": END, "boolean_value": False}
    return {"data": events, "labels": pd.DataFrame({"subject_id": SUBJECTS}).assign(**labels)}


def write_meds(folder: Path, frames: Frames) -> dict[str, Any]:
    meds_demo.write(frames["data"].sort_values(["subject_id", "time"]), folder, shards=2)
    frames["labels"].to_parquet(folder / "labels.parquet")
    (folder / "codes.csv").write_text(
        "code,variable,unit\nHR,heart_rate,/min\nHEIGHT,height,cm\nCRP,crp,mg/L\n"
    )
    return {"labels": folder / "labels.parquet", "codes": folder / "codes.csv"}


def meds_ends(frames: Frames, options: Options) -> Frames:
    dead = frames["data"].iloc[::2].assign(code="MEDS_DEATH", time=END + pd.Timedelta(hours=30))
    told = frames["labels"].assign(boolean_value=np.array(HALF) == 1)
    return {"data": pd.concat([frames["data"], dead]), "labels": told}


def own() -> Frames:
    events = happened(("charted",), name="hr", number=numbers(0, 60)["value"])
    return {"events": events, "stays": mimic()["icustays"].assign(died=0)}


def own_ends(frames: Frames, options: Options) -> Frames:
    return frames | {"stays": frames["stays"].assign(died=HALF)}


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
    "chartevents": Timed(
        TIMES,
        VALUE,
        tuple({"itemid": item, "value": "None", "valuenum": None} for item in COMA),
    ),
    "labevents": Timed(TIMES, VALUE),
    "radiology": Timed(TIMES, {"text": FILM.format("later"), "note_id": "z"}),
    METADATA: Timed(("time",), {"dicom_id": "later"}),
}
DIED = {"in-hospital-mortality": {"label": HALF}}
CASES = {
    "mimic3": Case(
        mimic3,
        {
            "chartevents": Timed(TIMES, VALUE, ({"error": 1}, {"itemid": 678, "value": 99})),
            "labevents": Timed(TIMES[:1], VALUE),
            "noteevents": Timed(TIMES, {"text": "Said later."}, ({"iserror": 1},)),
        },
        write_csv,
        mimic_ends,
        MIMIC_OUTCOMES,
    ),
    "mimic4": Case(mimic4, MIMIC4, write_pictures, mimic_ends, MIMIC_OUTCOMES),
    "eicu": Case(
        eicu,
        EICU,
        write_eicu,
        eicu_ends,
        EICU_OUTCOMES,
        HOURS * 60,
        60,
        frozenset({"apache.parquet", "scores.parquet"}),
    ),
    "physionet2012": Case(
        physionet,
        dict.fromkeys(BLOCKS, Timed(("minute",), {"value": 7.5})),
        write_physionet,
        physionet_ends,
        DIED,
        HOURS * 60,
        60,
        frozenset({"static.parquet", "scores.parquet"}),
    ),
    "meds": Case(
        meds,
        {
            "data": Timed(
                ("time",),
                {"numeric_value": 88.0},
                tuple({"code": code} for code in ("HEIGHT", "CRP", "UNKNOWN", "MEDS_DEATH")),
                early=True,
            )
        },
        write_meds,
        meds_ends,
        DIED,
    ),
    "table": Case(
        own,
        {"events": Timed(("charted",), {"number": 88.0}, ({"name": "new"},), early=True)},
        write_csv,
        own_ends,
        DIED,
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


def named(task: Mapping[str, Any]) -> str:
    return task.get("readmission", task["task"])


def at(rows: pd.DataFrame, times: tuple[str, ...], moment: Any) -> pd.DataFrame:
    return rows.assign(**dict.fromkeys(times, moment))


def another(case: Case, options: Options) -> Frames:
    """Another future: later rows are others, and more of them, and all ends otherwise."""
    made = case.ends(case.frames(), options)
    for name, (times, other, new, early) in case.late.items():
        rows = made[name].assign(**other)
        late = [at(rows, times, case.end + k * case.hour) for k in (0, 1, 23)]
        late += [at(rows.assign(**one), times, case.end) for one in new]
        if len(times) > 1:
            # Never entered.
            late.append(at(rows, times[:1], case.end).assign(**{times[-1]: None}))
        if options.known_by == "storetime" and len(times) > 1:
            late.append(at(rows, times[-1:], case.end))
        if early:
            late.append(at(rows, times, case.end - (HOURS + 1) * case.hour))
        made[name] = pd.concat([made[name], *late], ignore_index=True)
    return made


def usual(case: Case) -> Frames:
    """The future in which what was said in time is said again."""
    made = case.frames()
    for name, (times, *_) in case.late.items():
        late = at(made[name], times, case.end + case.hour)
        made[name] = pd.concat([made[name], late], ignore_index=True)
    return made


class Made(NamedTuple):
    """A prepared folder.

    Attributes:
        stays: What became of each.
        files: The bytes of the features.
        facts: What the manifest says of them.
        left_out: The measurements that it counts as left out.
    """

    stays: pd.DataFrame
    files: dict[str, bytes]
    facts: dict[str, Any]
    left_out: dict[str, Any]


def make(name: str, frames: Frames, folder: Path, options: Options) -> Made:
    raw, out = folder / "raw", folder / "out"
    given = CASES[name].write(raw, frames)
    ccs = [raw / GROUPS[9]] if options.task == "phenotyping" else []
    about = prepare(name, raw, out, options, named=Named(ccs=ccs, **given))
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    del files["manifest.json"], files["stays.parquet"]
    stays = pd.read_parquet(out / "stays.parquet")
    return Made(stays, files, about["modalities"], about.get("measurements_left_out", {}))


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
    for name, case in CASES.items():
        assert {named(task) for task in tasks(name)} - {"none"} == set(case.outcomes)
    # All of eICU's tables with times, each by the times that count.
    times = {name: set(one.times) for name, one in EICU.items()}
    assert {name: times.get(name) for name in KNOWN} == {n: set(t) for n, t in KNOWN.items()}


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
    if options.known_by == "charttime":
        # What was charted in time and entered late is counted, of course.
        assert found.left_out == known.left_out
    # The label is the one column that may differ, and it is what the outcome says.
    assert known.stays["label"].tolist() == [0] * len(known.stays)
    outcomes = CASES[name].outcomes.get(named(task), {"label": [None] * len(known.stays)})
    ended = found.stays[list(outcomes)].astype(object)
    assert ended.where(ended.notna(), None).to_dict("list") == outcomes
    ours, theirs = (
        one.stays.drop(columns=list(outcomes), errors="ignore") for one in (found, known)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize("name", CASES)
def test_a_row_that_moves_into_the_window_is_seen(
    name: str, plain: Callable[[str], Made], tmp_path: Path
) -> None:
    """The law can fail: the row that must not count at the end counts a minute before it."""
    case, options = CASES[name], chosen(name)
    made = another(case, options)
    for table, (times, *_) in case.late.items():
        late = made[table].index[made[table][times[0]] == case.end]
        made[table].loc[late[:1], list(times)] = case.end - case.hour // 60
    found, known = make(name, made, tmp_path, options).files, plain(name).files
    same = {name for name in known if found[name] == known[name]}
    assert {name for name in same if name.endswith((".parquet", ".npy"))} == case.timeless
