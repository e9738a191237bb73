"""In-hospital mortality after the first day of an eICU unit stay, as modalities.

Source: Pollard et al. (2018), The eICU Collaborative Research Database, Scientific Data 5:180178.
Every row used was both measured and written down before the prediction time; no column that is
known only at discharge is ever read (``docs`` of the columns: https://eicu-crd.mit.edu).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from cm2.prepare import eicu_columns as columns
from cm2.prepare.documents import vectorize
from cm2.prepare.tables import Tables

__all__ = ["Cohort", "featurize", "in_hospital_mortality"]

STAY = "patientunitstayid"


@dataclass(frozen=True)
class Cohort:
    """Stays with their modalities, outcome and the clinical score to beat.

    Attributes:
        inputs: Numeric modalities, one frame each, indexed by stay; a row of NaN where the stay
            lacks the modality.
        documents: Modalities of coded paths, one line a path; null where the stay lacks it. A
            modality may have numbers and a document.
        target: 1 for death in hospital, else 0.
        patient: The patient of each stay (a patient may have several).
        score: Hospital mortality predicted by APACHE IVa; NaN where there is none.
        flow: The cohort's making: what was found, each exclusion, what is left.
        unreadable: Number of values of ``"table.column"`` that were not numbers.
    """

    inputs: dict[str, pd.DataFrame]
    documents: dict[str, pd.Series]
    target: pd.Series
    patient: pd.Series
    score: pd.Series
    flow: list[tuple[str, int]]
    unreadable: dict[str, int]


def in_hospital_mortality(folder: Path, *, hours: float = 24) -> Cohort:
    """Builds the cohort of stays that last at least ``hours``, seen through their first ``hours``.

    Args:
        folder: The raw eICU tables, as ``.csv``, ``.csv.gz`` or ``.parquet``.
        hours: Prediction time, counted from admission to the unit. APACHE's variables are the
            worst of the first day, so that they are left out where this is under 24.

    Raises:
        FileNotFoundError: A table is missing.
        ValueError: A column is missing, a file is broken, or no stay is left.
    """
    if not hours > 0:
        raise ValueError(f"hours must be positive, got {hours}")
    with Tables(folder, columns.WANTED) as tables:
        minutes = hours * 60
        stays, flow = _stays(tables["patient"].execute().sort_values(STAY), minutes)
        index = pd.Index(stays[STAY], name=STAY)
        kept = ibis.memtable(pd.DataFrame({STAY: index}))
        window = _Window(tables, kept, minutes)
        exam = window.exam()
        inputs = {
            "static": _static(stays.set_index(STAY), window),
            "vitals": window.summaries(window.vitals(), columns.VITALS),
            "exam": window.summaries(window.readings(exam), columns.EXAM),
        }
        if hours >= 24:
            inputs["apache"] = _apache(tables, kept)
        documents = {
            "exam": window.document(window.findings(exam)),
            "notes": window.document(window.notes()),
            "diagnosis": window.document(window.diagnoses()),
            "treatment": window.document(window.treatments()),
        }
        return Cohort(
            inputs={name: frame.reindex(index) for name, frame in inputs.items()},
            documents={name: text.reindex(index).rename(name) for name, text in documents.items()},
            target=pd.Series(
                (stays["hospitaldischargestatus"] == "Expired").to_numpy(int), index, name="died"
            ),
            patient=pd.Series(stays["uniquepid"].to_numpy(), index, name="patient"),
            score=_score(tables, kept).reindex(index),
            flow=flow,
            unreadable=dict(sorted(tables.unreadable.items())),
        )


def featurize(
    cohort: Cohort, train: pd.Index, *, dimensions: int = 16, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Returns every modality as numbers; documents are vectorised on training rows only.

    Args:
        cohort: What ``in_hospital_mortality`` returned.
        train: Index labels (stays) of the training rows.
        dimensions: Numbers a document.
        seed: Of the randomised SVD.
    """
    return {
        name: pd.concat(
            [
                *([cohort.inputs[name]] if name in cohort.inputs else []),
                *(
                    [vectorize(cohort.documents[name], train, dimensions, seed=seed)]
                    if name in cohort.documents
                    else []
                ),
            ],
            axis=1,
        )
        for name in dict.fromkeys([*cohort.inputs, *cohort.documents])
    }


def _stays(patient: pd.DataFrame, minutes: float) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """Applies the exclusions one after the other and counts each."""
    if repeated := int(patient[STAY].duplicated().sum()):
        raise ValueError(f"table patient: {repeated} rows repeat a {STAY}, one row a stay expected")
    flow = [("unit stays in the folder", len(patient))]
    exclusions = {
        "no stay or patient identifier": lambda p: p[STAY].isna() | p["uniquepid"].isna(),
        "no time of unit discharge": lambda p: p["unitdischargeoffset"].isna(),
        f"left the unit before {minutes / 60:g} h": lambda p: p["unitdischargeoffset"] < minutes,
        "hospital discharge status unknown": lambda p: (
            ~p["hospitaldischargestatus"].isin(["Alive", "Expired"])
        ),
    }
    for reason, excluded in exclusions.items():
        out = excluded(patient).to_numpy(bool)
        patient = patient[~out]
        flow.append((f"excluded: {reason}", int(out.sum())))
    flow.append(("stays kept", len(patient)))
    flow.append(
        ("deaths in hospital", int((patient["hospitaldischargestatus"] == "Expired").sum()))
    )
    if patient.empty:
        raise ValueError(f"no stay is left: {flow}")
    return patient.reset_index(drop=True), flow


class _Window:
    """The rows of the kept stays that were known before the prediction time."""

    def __init__(self, tables: Tables, kept: ir.Table, minutes: float) -> None:
        self.tables = tables
        self.kept = kept
        self.minutes = minutes

    def rows(self, name: str) -> ir.Table:
        """All times of a row (measured, entered, started) lie before the window's end."""
        table = self.tables[name].semi_join(self.kept, STAY)
        return table.filter(*(table[time] < self.minutes for time in columns.TIMES[name]))

    def exam(self) -> ir.Table:
        """Physical examinations carry their note's time only; those of notes entered late go."""
        note = self.tables["note"]
        late = (
            note.group_by(STAY, physicalexamoffset=note.noteoffset)
            .agg(entered=note.noteenteredoffset.min())
            .filter(ibis._.entered >= self.minutes)
        )
        table = self.rows("physicalexam").anti_join(late, [STAY, "physicalexamoffset"])
        path = table.physicalexampath.replace(columns.EXAM_PREFIX, "")
        number = ibis.coalesce(
            table.physicalexamtext.try_cast("float64"), table.physicalexamvalue.try_cast("float64")
        )
        return table.select(STAY, minute=table.physicalexamoffset, path=path, number=number)

    def readings(self, exam: ir.Table) -> ir.Table:
        variable = exam.path.re_replace(r"/[0-9.]+$", "").substitute(
            columns.EXAM_PATHS, else_=ibis.null("string")
        )
        return exam.select(STAY, "minute", variable=variable, value=exam.number)

    def vitals(self) -> ir.Table:
        """Readings of all sources in one long table: stay, minute, variable, value."""
        blood = self.rows("vitalaperiodic")
        pressures = blood.select(
            STAY,
            **{v: blood[c] for c, v in columns.PRESSURES.items()},
            minute=blood.observationoffset,
        ).pivot_longer(list(columns.PRESSURES.values()), names_to="variable", values_to="value")
        chart = self.rows("respiratorycharting")
        charted = chart.select(
            STAY,
            minute=chart.respchartoffset,
            variable=chart.respchartvaluelabel.lower().substitute(
                columns.CHARTED, else_=ibis.null("string")
            ),
            value=chart.respchartvalue.replace("%", "").try_cast("float64"),
        )
        flow = self.rows("intakeoutput").distinct()
        fluids = [
            flow.filter(flow.intakeoutputoffset >= 0, flow.cellpath.re_search(pattern)).select(
                STAY,
                minute=flow.intakeoutputoffset,
                variable=ibis.literal(variable),
                value=flow.cellvaluenumeric,
            )
            for variable, pattern in columns.FLUIDS.items()
        ]
        long = [
            t.select(STAY, t.minute.cast("float64"), "variable", "value")
            for t in (pressures, charted, *fluids)
        ]
        return ibis.union(*long)

    def summaries(
        self, events: ir.Table, variables: Mapping[str, columns.Variable]
    ) -> pd.DataFrame:
        """Summarises each variable of each stay by the statistics that its entry names."""
        value = events.value
        fraction = events.variable.isin(columns.PER_CENT) & (value <= 1)
        events = events.mutate(value=fraction.ifelse(value * 100, value))
        low = events.variable.substitute({n: v.low for n, v in variables.items()}, else_=np.inf)
        high = events.variable.substitute({n: v.high for n, v in variables.items()}, else_=-np.inf)
        events = events.filter(events.minute >= columns.BEFORE, events.value.between(low, high))
        order = [events.minute, events.value]
        hour = events.minute / 60
        summary = (
            events.group_by(STAY, "variable")
            .agg(
                count=events.value.count().cast("float64"),
                total=events.value.sum(),
                mean=events.value.mean(),
                min=events.value.min(),
                max=events.value.max(),
                first=events.value.first(order_by=order),
                last=events.value.last(order_by=order),
                slope=events.value.cov(hour, how="pop") / hour.var(how="pop").nullif(0),
            )
            .execute()
        )
        wide = summary.pivot(index=STAY, columns="variable", values=list(columns.STATISTICS))
        wide.columns = [f"{variable}_{statistic}" for statistic, variable in wide.columns]
        names = [f"{name}_{s}" for name, v in variables.items() for s in v.statistics]
        wide = wide.reindex(columns=names).sort_index().astype("float64")
        counts = [name for name in names if name.endswith("_count")]
        return wide.fillna(dict.fromkeys(counts, 0.0))

    def findings(self, exam: ir.Table) -> list[ir.Table]:
        return [_lines(exam.filter(exam.number.isnull()), "minute", "exam", "path", level="/")]

    def notes(self) -> list[ir.Table]:
        note = self.rows("note")
        note = note.filter(~note.notepath.contains("/Shared/"))
        note = note.mutate(path=note.notepath.re_replace(columns.NOTE_PREFIX, ""))
        past = self.rows("pasthistory")
        past = past.mutate(path=past.pasthistorypath.re_replace(columns.HISTORY_PREFIX, ""))
        return [
            _lines(note, "noteoffset", "note", "path", level="/"),
            _lines(past, "pasthistoryoffset", "history", "path", level="/"),
        ]

    def diagnoses(self) -> list[ir.Table]:
        admission = self.rows("admissiondx")
        admission = admission.mutate(path=admission.admitdxpath.replace("admission diagnosis|", ""))
        return [
            _lines(self.rows("diagnosis"), "diagnosisoffset", "diagnosis", "diagnosisstring"),
            _lines(admission, "admitdxenteredoffset", "admission", "path"),
        ]

    def treatments(self) -> list[ir.Table]:
        care = self.rows("respiratorycare")
        return [
            _lines(self.rows("treatment"), "treatmentoffset", "treatment", "treatmentstring"),
            _lines(self.rows("medication"), "drugstartoffset", "medication", "drugname"),
            _lines(self.rows("infusiondrug"), "infusionoffset", "infusion", "drugname"),
            _lines(self.rows("admissiondrug"), "drugoffset", "home drug", "drugname"),
            _lines(care, "respcarestatusoffset", "airway", "airwaytype"),
        ]

    def document(self, lines: list[ir.Table]) -> pd.Series:
        """Joins the distinct lines of each stay in the order of their first appearance."""
        both = ibis.union(*lines) if len(lines) > 1 else lines[0]
        first = (
            both.filter(both.line.notnull()).group_by(STAY, "line").agg(minute=both.minute.min())
        )
        document = first.group_by(STAY).agg(
            document=first.line.group_concat("\n", order_by=[first.minute, first.line])
        )
        frame = document.order_by(STAY).execute()
        return pd.Series(frame["document"].to_numpy(object), pd.Index(frame[STAY], name=STAY))


def _lines(table: ir.Table, minute: str, kind: str, path: str, level: str = "|") -> ir.Table:
    """One line a row: the kind and the path, lower case, its levels parted by bars."""
    text = table[path].lower().replace("\n", " ").replace(level, "|")
    line = ibis.literal(f"{kind}|") + text
    return table.select(STAY, minute=table[minute].cast("float64"), line=line)


def _static(patient: pd.DataFrame, window: _Window) -> pd.DataFrame:
    """What is known at the door: never missing as a whole."""
    number = patient[["admissionheight", "admissionweight"]]
    height = number["admissionheight"].where(number["admissionheight"].between(100, 230))
    weight = number["admissionweight"].where(number["admissionweight"].between(25, 350))
    before = (-patient["hospitaladmitoffset"] / 60).clip(lower=0)
    age = patient["age"].replace(columns.OLDEST, "90")
    frame = pd.DataFrame(
        {
            "age": pd.to_numeric(age, errors="coerce"),
            "female": (patient["gender"] == "Female").astype(float),
            "height": height,
            "weight": weight,
            "body_mass_index": weight / (height / 100) ** 2,
            "log_hours_in_hospital": np.log1p(before),
            "unit_visit": patient["unitvisitnumber"].clip(upper=3).astype(float),
        },
        index=patient.index,
    )
    for column, values in columns.CATEGORIES.items():
        for value in values:
            frame[f"{column}={value}"] = (patient[column] == value).astype(float)
    admission = window.rows("admissiondx")
    paths = admission.select(STAY, path=admission.admitdxpath).distinct().execute()
    for name, pattern in columns.ADMISSION.items():
        found = paths.loc[paths["path"].str.contains(pattern, regex=True, na=False), STAY]
        frame[name] = frame.index.isin(found).astype(float)
    return frame


def _apache(tables: Tables, kept: ir.Table) -> pd.DataFrame:
    """APACHE's physiology (worst of the first day; -1 is missing) and chronic conditions."""
    physiology = _one_row(tables["apacheapsvar"], kept, columns.PHYSIOLOGY, "apacheapsvarid")
    chronic = _one_row(tables["apachepredvar"], kept, columns.CHRONIC, "apachepredvarid")
    frame = physiology.join(chronic, how="left").astype("float64")
    frame = frame.mask(frame < 0)
    frame["gcs"] = frame["eyes"] + frame["motor"] + frame["verbal"]
    frame["oxygenation"] = frame["pao2"] / frame["fio2"].clip(lower=21)
    for name, normal in columns.NORMAL.items():
        frame[f"{name}_deviation"] = (frame[name] - normal).abs()
    frame[columns.SKEWED] = np.log1p(frame[columns.SKEWED])
    return frame


def _one_row(table: ir.Table, kept: ir.Table, names: tuple[str, ...], key: str) -> pd.DataFrame:
    """The row of smallest key of each stay."""
    table = table.semi_join(kept, STAY)
    chosen = table.group_by(STAY).agg(**{key: table[key].min()})
    frame = table.semi_join(chosen, [STAY, key]).select(STAY, *names).execute()
    return frame.drop_duplicates(STAY).set_index(STAY).sort_index()


def _score(tables: Tables, kept: ir.Table) -> pd.Series:
    result = tables["apachepatientresult"]
    result = result.filter(result.apacheversion == "IVa")
    frame = _one_row(result, kept, ("predictedhospitalmortality",), "apachepatientresultsid")
    score = frame["predictedhospitalmortality"].astype("float64")
    return score.where(score.between(0, 1)).rename("apache_iva")
