"""Patients, hospital admissions and ICU stays, with readmissions, deaths and faults, as arrays.

The frames are neutral: the writers of MIMIC-III and MIMIC-IV give them their names and codes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.random import Generator

from cm2.clinical.synthesize import latents
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.latents import World

__all__ = ["Episodes", "Ids", "draw", "length"]

MOST_ADMISSIONS = 4
UNITS = ("MICU", "SICU", "CCU", "CSRU", "TSICU")
UNIT_SHARES = (0.45, 0.18, 0.15, 0.12, 0.10)

Array = np.ndarray


class Ids(NamedTuple):
    """First numbers of patients, admissions and stays: outside the ranges of the real data."""

    subject: int
    admission: int
    stay: int


class Episodes(NamedTuple):
    """Who was where and when.

    Attributes:
        patients: subject_id, gender, age (at the first admission, years), first (first admission),
            dod (date of death or null), died (in hospital).
        admissions: subject_id, hadm_id, age, minor, newborn, admittime, dischtime, deathtime.
        stays: subject_id, hadm_id, stay_id, intime, outtime (as written), end (true end),
            first_unit, last_unit, and admission, the row of its admission.
        readable: Latents of the stays.
        severity: Severity of the stays.
    """

    patients: pd.DataFrame
    admissions: pd.DataFrame
    stays: pd.DataFrame
    readable: Float[Array, "stay modality axis"]
    severity: Float[Array, stay]


def draw(
    patients: int, world: World, faults: Faults, ids: Ids, rng: Generator, *, minors: bool
) -> Episodes:
    """Draws all patients of a data set.

    Args:
        patients: How many.
        world: Parameters of latents and outcomes.
        faults: Rates of the faults.
        ids: First identifiers.
        rng: Source of randomness.
        minors: Whether some patients are under 18 (MIMIC-III has newborns, MIMIC-IV nobody).
    """
    people = _people(patients, faults, ids, rng, minors=minors)
    admissions, found = _admissions(people, world, ids, rng)
    stays, rows = _stays(admissions, faults, ids, rng)
    _deaths(people, admissions, rng)
    # A second stay of an admission shares its latents: it is the same illness.
    return Episodes(
        people.drop(columns="own"),
        admissions.drop(columns=["icu_hours", "icu_start", "died"]),
        stays,
        found.readable[rows],
        found.severity[rows],
    )


def length(stays: pd.DataFrame) -> Float[Array, stay]:
    """Hours from the start of each stay to its true end."""
    seconds = stays["end"].to_numpy().astype("M8[s]") - stays["intime"].to_numpy().astype("M8[s]")
    return seconds.astype(np.int64) / 3600.0


def _people(
    patients: int, faults: Faults, ids: Ids, rng: Generator, *, minors: bool
) -> pd.DataFrame:
    age = np.clip(rng.normal(64.0, 15.0, patients), 18.2, 88.8)
    old = pick(patients, faults.over_89, rng)
    age[old] = rng.uniform(90.0, 99.0, int(old.sum()))
    if minors:
        young = pick(patients, faults.minor, rng) & ~old
        newborn = young & (rng.random(patients) < 0.6)
        age[young] = rng.uniform(1.0, 17.8, int(young.sum()))
        age[newborn] = 0.0
    first = np.datetime64("2110-01-01", "s") + _seconds(rng.uniform(0, 80 * 365 * 24, patients))
    return pd.DataFrame(
        {
            "subject_id": ids.subject + np.cumsum(rng.integers(1, 4, patients)),
            "gender": np.where(rng.random(patients) < 0.56, "M", "F"),
            "age": age,
            "first": first,
            "own": rng.standard_normal(patients),
        }
    )


def _admissions(
    people: pd.DataFrame, world: World, ids: Ids, rng: Generator
) -> tuple[pd.DataFrame, latents.Latents]:
    """Admissions one after the other, for all patients at once, until death or no return."""
    rows = np.arange(len(people))
    start = people["first"].to_numpy()
    frames, severity, readable = [], [], []
    for _ in range(MOST_ADMISSIONS):
        found = latents.draw(people["own"].to_numpy()[rows], world, rng)
        frame = _one_admission(people.iloc[rows], start, found.severity, world, rng)
        frames.append(frame.assign(person=rows))
        severity.append(found.severity)
        readable.append(found.readable)
        soon = rng.random(len(rows)) < latents.return_soon(found.severity, world)
        again = (soon | (rng.random(len(rows)) < 0.2)) & ~frame["died"].to_numpy()
        days = np.where(soon, rng.uniform(1.5, 24.0, len(rows)), rng.uniform(45, 600, len(rows)))
        start = (frame["dischtime"].to_numpy() + _seconds(24 * days))[again]
        rows = rows[again]
    joined = pd.concat(frames, ignore_index=True)
    order = np.lexsort((joined["admittime"], joined["person"]))
    admissions = joined.iloc[order].reset_index(drop=True).drop(columns="person")
    admissions.insert(1, "hadm_id", ids.admission + rng.permutation(2 * len(order))[: len(order)])
    return admissions, latents.Latents(
        np.concatenate(severity)[order], np.concatenate(readable)[order]
    )


def _one_admission(
    people: pd.DataFrame,
    start: Array,
    severity: Float[Array, row],
    world: World,
    rng: Generator,
) -> pd.DataFrame:
    size = len(people)
    died = rng.random(size) < latents.death(severity, world)
    wait = np.where(rng.random(size) < 0.6, 0.02, rng.exponential(14.0, size))
    icu_start = start + _seconds(wait)
    icu_hours = np.clip(np.exp(rng.normal(np.log(70.0), 0.6, size)), 6.0, 290.0)
    ward_hours = np.where(died & (rng.random(size) < 0.75), 0.0, rng.exponential(60.0, size))
    discharge = icu_start + _seconds(icu_hours + ward_hours)
    passed = (start - people["first"].to_numpy()) / np.timedelta64(1, "s") / 86400 / 365.2425
    age = people["age"].to_numpy() + passed
    # The age of the first admission decides, so that a patient does not come of age in the data.
    minor = people["age"].to_numpy() < 18
    return pd.DataFrame(
        {
            "subject_id": people["subject_id"].to_numpy(),
            "age": np.where(minor, np.minimum(age, 17.9), age),
            "minor": minor,
            "newborn": (people["age"].to_numpy() == 0) & (passed < 0.01),
            "admittime": _minute(start),
            "dischtime": _minute(discharge),
            "deathtime": np.where(died, _minute(discharge), np.datetime64("NaT", "s")),
            "icu_start": icu_start,
            "icu_hours": icu_hours,
            "died": died,
        }
    )


def _stays(
    admissions: pd.DataFrame, faults: Faults, ids: Ids, rng: Generator
) -> tuple[pd.DataFrame, Int[Array, stay]]:
    size = len(admissions)
    start = admissions["icu_start"].to_numpy().astype("M8[s]")
    hours = admissions["icu_hours"].to_numpy()
    # A second stay needs a survivor of the first one and lies before discharge.
    extra = pick(size, faults.second_stay, rng) & ~admissions["died"].to_numpy() & (hours > 24)
    rows = np.sort(np.concatenate([np.arange(size), np.flatnonzero(extra)]))
    second = np.concatenate([[False], rows[1:] == rows[:-1]])
    split = extra[rows]
    intime = start[rows] + _seconds(np.where(second, 0.7 * hours[rows], 0.0))
    length = np.where(second, 0.3, np.where(split, 0.5, 1.0)) * hours[rows]
    end = intime + _seconds(length)
    died = admissions["died"].to_numpy()[rows]
    wrong = pick(len(rows), faults.outtime_before_intime, rng) & ~died
    outtime = np.where(wrong, intime - _seconds(rng.uniform(0.5, 9.0, len(rows))), end)
    unit = rng.choice(UNITS, size=len(rows), p=UNIT_SHARES)
    other = rng.choice(UNITS, size=len(rows), p=UNIT_SHARES)
    unit = np.where(admissions["newborn"].to_numpy()[rows], "NICU", unit)
    moved = pick(len(rows), faults.transfer, rng) & (unit != "NICU")
    stays = pd.DataFrame(
        {
            "subject_id": admissions["subject_id"].to_numpy()[rows],
            "hadm_id": admissions["hadm_id"].to_numpy()[rows],
            "stay_id": ids.stay + rng.permutation(2 * len(rows))[: len(rows)],
            "intime": intime,
            "outtime": outtime,
            "end": end,
            "first_unit": unit,
            "last_unit": np.where(moved, other, unit),
            "admission": rows,
        }
    )
    return stays, rows


def _deaths(people: pd.DataFrame, admissions: pd.DataFrame, rng: Generator) -> None:
    """Adds the day of death: in hospital, or for some of the others after the last discharge."""
    by_patient = admissions.groupby("subject_id")
    last = by_patient["dischtime"].max().reindex(people["subject_id"]).to_numpy()
    died = by_patient["died"].max().reindex(people["subject_id"]).to_numpy().astype(bool)
    later = ~died & (rng.random(len(people)) < 0.25)
    after = last + _seconds(24 * rng.exponential(400.0, len(people)))
    day = np.where(died, last, np.where(later, after, np.datetime64("NaT", "s")))
    people["dod"] = day.astype("M8[D]").astype("M8[s]")
    people["died"] = died
    people["last"] = last.astype("M8[s]")


def _seconds(hours: Array) -> Array:
    return np.round(np.asarray(hours) * 3600).astype("m8[s]")


def _minute(times: Array) -> Array:
    return times.astype("M8[m]").astype("M8[s]")
