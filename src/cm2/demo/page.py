"""The demo's tables, on the terminal and in the report, and the report's sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cm2.benchmark.methods import LATE_FUSION, METHODS, POOLED
from cm2.benchmark.studies import Study
from cm2.evaluation import report
from cm2.evaluation.figures import availability, calibration, comparison, style, training

if TYPE_CHECKING:
    from cm2.demo import Result

SHOWN = ("AUROC", "AUPR", "Brier")
BETTER = {"AUROC": "higher is better", "AUPR": "higher is better", "Brier": "lower is better"}
REMOVED = {
    "test": "Fitted once a split, to rows as they are; modalities are removed at random from test "
    "rows only, so that no method has trained with any removed.",
    "both": "Modalities are removed at random from training and test rows alike, a fit each rate.",
}
PATHS = ("data", "out")
"""Options that are paths."""

CURVES = {
    "loss": ("train_task", "val_loss"),
    "terms of the joint": ("train_joint_nll", "train_alignment"),
    "dependence": ("alpha", "kendall_tau", "strength"),
    "log copula density, total correlation (nats)": ("log_copula_density", "total_correlation"),
    "KS distance of u to uniform": ("ks", "ks_max"),
}


def _rate(rate: float) -> str:
    return "as observed" if rate == 0 else f"{100 * rate:g}% removed"


def _interval(row: Mapping[str, Any], name: str = "value", prefix: str = "") -> str:
    value, low, high = row[name], row[f"{prefix}low"], row[f"{prefix}high"]
    if np.isnan(value):
        return ""
    sign = "+" if prefix else ""
    numbers = [
        re.sub(r"^([+-]?)0\.", r"\1.", f"{number:{sign}.3f}") for number in (value, low, high)
    ]
    return "{} ({} to {})".format(*numbers) if prefix else "{} ({}–{})".format(*numbers)


def _about(table: pd.DataFrame) -> dict[str, str]:
    return {name: METHODS[name].about for name in dict.fromkeys(table["method"])}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def tables(results: pd.DataFrame) -> list[report.Table]:
    """A table a metric: methods by rates, each with its interval."""
    made = []
    for metric in SHOWN:
        chosen = results[results["metric"] == metric]
        rows = {method: {"": method} for method in dict.fromkeys(chosen["method"])}
        for row in _records(chosen):
            rows[row["method"]][_rate(row["rate"])] = _interval(row)
        caption = f"{metric} ({BETTER[metric]}), 95% bootstrap interval"
        made.append(report.Table(caption, pd.DataFrame(list(rows.values())), [POOLED]))
    return made


def differences(results: pd.DataFrame) -> list[report.Table]:
    """A table a metric: paired differences to late fusion."""
    made = []
    for metric in SHOWN:
        chosen = results[(results["metric"] == metric) & (results["method"] != LATE_FUSION)]
        rows = {method: {"": method} for method in dict.fromkeys(chosen["method"])}
        for row in _records(chosen):
            rows[row["method"]][_rate(row["rate"])] = _interval(row, "difference", "difference_")
        caption = f"{metric}: difference to {LATE_FUSION}, paired, 95% bootstrap interval"
        made.append(report.Table(caption, pd.DataFrame(list(rows.values())), [POOLED]))
    return made


def score_table(study: Study, score: pd.DataFrame) -> report.Table:
    """Methods by metrics on the rows with a clinical score."""
    rows = {method: {"": method} for method in dict.fromkeys(score["method"])}
    for row in _records(score):
        if row["metric"] in SHOWN:
            rows[row["method"]][row["metric"]] = _interval(row)
    size = score.iloc[0]
    caption = (
        f"On test rows with {study.score_name} ({size['rows']} a split, {size['positives']} "
        f"{study.labels[1]}), {_rate(size['rate'])}"
    )
    return report.Table(caption, pd.DataFrame(list(rows.values())), [study.score_name])


def _reliability(study: Study, results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Predicted against observed, over all splits at the lowest rate."""
    made = {}
    for method in (POOLED, LATE_FUSION):
        outcome, probability = [], []
        for result in results:
            if method in result.probability:
                predicted, y = result.probability[method], study.y[result.rows]
                if predicted.shape[1] == 2:
                    outcome.append(y == 1)
                    probability.append(predicted[:, 1])
                else:
                    outcome.append(predicted.argmax(axis=1) == y)
                    probability.append(predicted.max(axis=1))
        made[method] = calibration.reliability(np.concatenate(outcome), np.concatenate(probability))
    return made


def _histories(folder: Path) -> pd.DataFrame | None:
    """The training log of the first network that was logged."""
    logs = sorted((folder / "training").rglob("metrics.csv"))
    return pd.read_csv(logs[0]) if logs else None


def _pictures(
    folder: Path, study: Study, table: pd.DataFrame, results: Sequence[Result]
) -> dict[str, report.Picture]:
    """Draws all figures and saves them."""
    what = (
        "Observed frequency of the outcome"
        if len(study.labels) == 2
        else "How often the most probable class is the true one"
    )
    made = {
        "comparison": report.Picture(
            "Methods over the share of removed modalities, with 95% intervals.",
            comparison.comparison(table, SHOWN),
        ),
        "availability": report.Picture(
            "Which modalities are there together, before any is removed.",
            availability.availability(study.present(), study.modalities),
        ),
        "calibration": report.Picture(
            f"{what}, by tenths of the predicted probability, over all splits, "
            f"{_rate(table['rate'].min())}.",
            calibration.calibration(_reliability(study, results)),
        ),
    }
    history = _histories(folder)
    if history is not None:
        made["training"] = report.Picture(
            "Training of one network: losses, the dependence that it finds between modalities, and "
            "how uniform the transformed embeddings are.",
            training.curves(history, CURVES),
        )
    for name, picture in made.items():
        style.save(picture.figure, folder / "figures", name)
    return made


def write(
    folder: Path,
    study: Study,
    settings: Mapping[str, Any],
    table: pd.DataFrame,
    score: pd.DataFrame | None,
    results: Sequence[Result],
    seconds: float,
) -> Path:
    """Writes figures and report, and returns the path of the report.

    The report names folders without their places, since it is made to be passed on.
    """
    named = {
        option: value if value is None or option not in PATHS else Path(value).resolve().name
        for option, value in settings.items()
    }
    size = table.iloc[0]
    splits = f"{size['splits']} random split{'' if size['splits'] == 1 else 's'}"
    pictures = _pictures(folder, study, table, results)
    lead = (
        f"From {study.source}: {len(study.y)} rows, {len(study.modalities)} modalities. Means over "
        f"{splits}, {size['rows']} test rows each."
    )
    protocol = [
        f"{REMOVED[str(settings['removal'])]} All methods see the same rows with the same "
        "modalities removed; at least one stays. No patient is on both sides of a split.",
        "Intervals are percentiles of a bootstrap over patients. Splits share patients, and a "
        "patient is drawn alike in all of them and for all methods. Draws that lack an outcome say "
        "nothing of AUROC, and of AUPR without a positive one, and are left out there.",
        *(f"{note}." for note in report.noted(_records(table), "metric")),
    ]
    clinical = [score_table(study, score)] if score is not None else []
    if score is not None:
        protocol += [
            f"{study.score_name}, {note}." for note in report.noted(_records(score), "metric")
        ]
    flow = pd.DataFrame(study.flow, columns=["step", "number"])
    sections = [
        report.Section("Results", protocol, [*tables(table), *clinical], [pictures["comparison"]]),
        report.Section(
            "Methods", tables=[report.Table("", report.pairs(_about(table), ("method", "what")))]
        ),
        report.Section(
            "Against late fusion",
            ["An interval that excludes zero means a difference beyond chance for these patients."],
            differences(table),
        ),
        report.Section("Calibration", pictures=[pictures["calibration"]]),
        report.Section(
            "Data", tables=[report.Table("Cohort", flow)], pictures=[pictures["availability"]]
        ),
    ]
    if "training" in pictures:
        sections.append(report.Section("Training", pictures=[pictures["training"]]))
    times = table[table["metric"] == SHOWN[0]].groupby("method", sort=False)["seconds"].mean()
    cost = report.pairs(
        {str(name): f"{value:.1f}" for name, value in times.items()}, ("method", "seconds")
    )
    sections.append(
        report.Section(
            "How it was run",
            [f"{seconds:.0f} seconds in all."],
            [
                report.Table("Seconds of one fit, one thread", cost),
                report.Table("Configuration", report.pairs(named, ("option", "value"))),
                report.Table("Versions", report.pairs(report.versions(), ("package", "version"))),
            ],
        )
    )
    return report.write(folder / "report.html", study.title, lead, sections)
