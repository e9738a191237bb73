"""Notes of MIMIC-III stays: what was written, when, of which kind, with the known faults."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize.episodes import length
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.words import FILLER, FINDINGS, IMPRESSIONS, NURSING, note

__all__ = ["draw"]

Array = np.ndarray
NURSING_EVERY = 8.0
LONGEST = 120.0  # hours of a stay that get notes


def draw(
    stays: pd.DataFrame,
    admissions: pd.DataFrame,
    text: Array,
    system: Array,
    noted: Array,
    faults: Faults,
    rng: Generator,
) -> pd.DataFrame:
    """Writes the notes of all stays and the discharge summaries of their admissions.

    Args:
        stays: With intime, end and the row of the admission.
        admissions: With dischtime, deathtime.
        text: Latents of the stays' text, (stay, axis).
        system: "carevue" or "metavision" for each stay.
        noted: Which stays have notes.
        faults: Rates of the faults.
        rng: Source of randomness.

    Returns:
        admission (row), time, stored, category, description, error, text, sorted by admission and
        time; time is null where the real table has none, and then date holds the day.
    """
    rows: list[tuple[int, np.datetime64, str, str, str]] = []
    hours = length(stays)
    start = stays["intime"].to_numpy().astype("M8[s]")
    row = stays["admission"].to_numpy()
    for stay in np.flatnonzero(noted):
        times = start[stay] + _seconds(_hours(hours[stay], rng))
        name = "Nursing" if system[stay] == "metavision" else "Nursing/other"
        for time in times:
            rows.append((row[stay], time, name, "Report", _nursing(text[stay], rng)))
        days = np.arange(int(min(hours[stay], LONGEST) // 24) + 1)
        rounds = np.minimum(24.0 * days + rng.uniform(2, 6, len(days)), hours[stay])
        for day, time in enumerate(start[stay] + _seconds(rounds)):
            if system[stay] == "metavision":
                progress = "Physician Resident Progress Note"
                rows.append((row[stay], time, "Physician ", progress, _progress(text[stay], rng)))
            if day == 0 or rng.random() < 0.5:
                film = "CHEST (PORTABLE AP)"
                rows.append((row[stay], time, "Radiology", film, _report(text[stay], rng)))
        rows.append((row[stay], times[0], "ECG", "Report", "Sinus rhythm. Compared to the tracing"
                     " of [**2101-3-4**] no diagnostic change."))  # fmt: skip
    last = admissions["deathtime"].notna().to_numpy()
    with_notes = np.isin(np.arange(len(admissions)), row[noted])
    for admission in np.flatnonzero(with_notes).tolist():
        time = admissions["dischtime"].iloc[admission].to_datetime64().astype("M8[s]")
        summary = _summary(died=bool(last[admission]))
        rows.append((admission, time, "Discharge summary", "Report", summary))
    return _faulty(
        pd.DataFrame(rows, columns=["admission", "time", "category", "description", "text"]),
        faults,
        rng,
    )


def _faulty(notes: pd.DataFrame, faults: Faults, rng: Generator) -> pd.DataFrame:
    notes["error"] = np.where(pick(len(notes), faults.note_error, rng), 1.0, np.nan)
    copies = notes[pick(len(notes), faults.repeated_note, rng)]
    notes = pd.concat([notes, copies], ignore_index=True)
    notes["time"] = notes["time"].astype("datetime64[s]")
    notes["date"] = notes["time"].dt.floor("D")
    delay = np.round(rng.exponential(1500.0, len(notes))).astype("m8[s]")
    notes["stored"] = notes["time"] + delay
    untimed = notes["category"].isin(["Discharge summary", "ECG", "Echo"]).to_numpy()
    notes.loc[untimed | pick(len(notes), faults.note_without_time, rng), "time"] = pd.NaT
    # Radiology reports come from another system, which has no store time in the table.
    notes.loc[(untimed | (notes["category"] == "Radiology").to_numpy()), "stored"] = pd.NaT
    order = np.lexsort((notes["time"], notes["date"], notes["admission"]))
    return notes.iloc[order].reset_index(drop=True)


def _hours(stay_hours: float, rng: Generator) -> Array:
    number = max(1, int(min(stay_hours, LONGEST) // NURSING_EVERY))
    return (np.arange(number) + rng.uniform(0.2, 0.8, number)) * min(NURSING_EVERY, stay_hours)


def _nursing(latent: Array, rng: Generator) -> str:
    said = note(NURSING, latent, rng, length=int(rng.integers(4, 8)))
    said.insert(int(rng.integers(len(said))), FILLER[int(rng.integers(len(FILLER)))])
    return f"NPN {rng.integers(7, 19)}:00\n" + ". ".join(said) + ".\nSigned by [**Name (NI) 12**]\n"


def _progress(latent: Array, rng: Generator) -> str:
    said = note(NURSING, latent, rng, length=5)
    return (
        "Chief Complaint: critical illness\n24 Hour Events: "
        + ". ".join(said)
        + ".\nPatient seen and examined on [**2101-3-5**] at [**Hospital1 18**].\n"
    )


def _report(latent: Array, rng: Generator) -> str:
    body = " ".join(note(FINDINGS, latent, rng, length=4))
    end = " ".join(note(IMPRESSIONS, latent, rng, length=1))
    return (
        "[**2101-3-4**] 5:12 AM\n CHEST (PORTABLE AP)"
        " Clip # [**Clip Number (Radiology) 77**]\n Reason: interval change\n"
        f" FINDINGS: {body}\n IMPRESSION: {end}\n"
    )


def _summary(*, died: bool) -> str:
    end = "Expired. Family was present." if died else "Discharged in stable condition."
    return (
        "Admission Date: [**2101-3-1**] Discharge Date: [**2101-3-9**]\n"
        f"Service: MEDICINE\nDischarge Disposition: {end}\n"
    )


def _seconds(hours: Array) -> Array:
    return np.round(hours * 60).astype("m8[m]").astype("m8[s]")
