"""Chest X-ray studies of MIMIC-IV stays: when, which views, the report, and its labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize.episodes import length
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.words import FINDINGS, IMPRESSIONS, findings, note

__all__ = ["LABELS", "Studies", "draw"]

LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip

SPOKEN = ("Lung Opacity", "Edema", "Atelectasis", "Cardiomegaly", "Pleural Effusion")
"""The label that each topic of the findings decides, in the order of the topics."""

OTHERS = (
    (
        "CT HEAD W/O CONTRAST",
        "\n\nFINDINGS:\n\nThere is no hemorrhage.\n\n"
        "IMPRESSION:\n\nNo acute intracranial process.\n",
    ),
    (
        "CT ABD & PELVIS WITH CONTRAST",
        "\n\nTECHNIQUE:  Helical images.\n\nDOSE:  Total DLP (Body) = 812 mGy-cm.\n\nFINDINGS:\n\n"
        "LOWER CHEST:  Small bilateral effusions.\n\nABDOMEN:\n\nHEPATOBILIARY:  The liver is"
        " normal in size.\n\nSPLEEN:  The spleen is normal.\n\nBONES:  No suspicious lesion.\n\n"
        "IMPRESSION:\n\n1. No abscess.  NOTIFICATION:  Discussed with ___ by telephone.\n",
    ),
    (
        "LIVER OR GALLBLADDER US",
        "\n\nFINDINGS:\n\nLIVER:  The hepatic parenchyma is smooth.\n\n"
        "BILE DUCTS:  The CHD measures 4 mm.\n\nGALLBLADDER:  There is no stone.\n\n"
        "IMPRESSION:\n\nNo gallstones.\n",
    ),
    (
        "MR HEAD W/O CONTRAST",
        "\n\nFINDINGS:\n\nBRAIN:  No infarct.\n\nORBITS:  Unremarkable.\n\nIMPRESSION:\n\n"
        "No acute infarct.\n\nRECOMMENDATION(S):  None.\n",
    ),
)
"""Examinations of other sorts, and what their reports say after the name."""

PORTABLE, STANDING = "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"
LATE = 30.0  # mean hours to the next study

Array = np.ndarray


class Studies(NamedTuple):
    """Studies, one row each, and images, one row a view.

    Attributes:
        studies: stay (row), subject_id, study_id, time, exam, earlier (before the stay, when the
            patient was well), text, and the labels.
        images: study (row), dicom_id, view.
        reports: study (row), time, stored, kind ("RR", or "AR" for an addendum), exam, text, and
            placed, whether it names its admission; sorted by patient and time.
    """

    studies: pd.DataFrame
    images: pd.DataFrame
    reports: pd.DataFrame


def draw(
    stays: pd.DataFrame,
    text: Array,
    first_study: int,
    pictured: Array,
    reported: Array,
    faults: Faults,
    rng: Generator,
) -> Studies:
    """Draws the studies of all stays.

    Args:
        stays: With subject_id, intime and end.
        text: Latents of the stays' text, (stay, axis).
        first_study: The lowest study number.
        pictured: Which stays have images; the others' studies have reports alone.
        reported: Which stays have reports.
        faults: Rates of the faults.
        rng: Source of randomness.
    """
    studies = _times(stays, rng)
    size = len(studies)
    studies["study_id"] = first_study + rng.permutation(3 * size)[:size]
    studies["exam"] = np.where(rng.random(size) < 0.75, PORTABLE, STANDING)
    told = np.where(studies["earlier"].to_numpy()[:, None], -1.5, text[studies["stay"]])
    bodies, labels = zip(*(_report(latent, rng) for latent in told), strict=True)
    studies["body"] = list(bodies)
    studies[list(LABELS)] = np.stack(labels)
    images = _images(np.flatnonzero(pictured[studies["stay"]]), studies["exam"].to_numpy(), rng)
    reports = _reports(studies, reported, faults, rng)
    return Studies(studies, images, reports)


def _times(stays: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    hours = length(stays)
    parts = []
    every = np.arange(len(stays))
    before = every[rng.random(len(stays)) < 0.25]
    parts.append((before, -rng.uniform(24, 2000, len(before)), True))
    hour = rng.uniform(0.2, 1.0, len(stays)) * np.minimum(hours, 24.0)
    rows = every
    while len(rows):
        parts.append((rows, hour, False))
        hour = hour + 4.0 + rng.exponential(LATE, len(rows))
        going = (hour < hours[rows]) & (rng.random(len(rows)) < 0.6)
        rows, hour = rows[going], hour[going]
    stay = np.concatenate([part[0] for part in parts])
    offset = np.round(np.concatenate([part[1] for part in parts]) * 3600).astype("m8[s]")
    earlier = np.repeat([part[2] for part in parts], [len(part[0]) for part in parts])
    frame = pd.DataFrame(
        {
            "stay": stay,
            "subject_id": stays["subject_id"].to_numpy()[stay],
            "time": stays["intime"].to_numpy().astype("M8[s]")[stay] + offset,
            "earlier": earlier,
        }
    )
    order = np.lexsort((frame["time"], frame["subject_id"]))
    return frame.iloc[order].reset_index(drop=True)


def _report(latent: Array, rng: Generator) -> tuple[str, Array]:
    sentences, worse = findings(FINDINGS, latent, rng)
    end = " ".join(note(IMPRESSIONS, latent, rng, length=len(IMPRESSIONS)))
    labels = np.full(len(LABELS), np.nan)
    for name, bad in zip(SPOKEN, worse, strict=True):
        labels[LABELS.index(name)] = float(bad)
    if worse[0]:
        labels[LABELS.index("Pneumonia")] = -1.0 if rng.random() < 0.6 else 1.0
    if not any(worse):
        labels[LABELS.index("No Finding")] = 1.0
    return (
        f"FINDINGS:\n\n{_wrapped(' '.join(sentences))}\n\nIMPRESSION:\n\n{_wrapped(end)}\n",
        labels,
    )


def _wrapped(text: str) -> str:
    words, lines, line = text.split(), [], ""
    for word in words:
        if len(line) + len(word) > 78:
            lines.append(line)
            line = ""
        line += word + " "
    return "\n".join([*lines, line])


def _images(rows: Array, exam: Array, rng: Generator) -> pd.DataFrame:
    """An AP image, sometimes two, or a PA with a lateral."""
    parts = []
    for row in rows.tolist():
        if exam[row] == STANDING:
            parts += [(row, "PA"), (row, "LATERAL")]
        else:
            parts += [(row, "AP")] * (2 if rng.random() < 0.1 else 1)
    digits = rng.bytes(20 * len(parts)).hex()
    names = [digits[40 * place : 40 * place + 40] for place in range(len(parts))]
    return pd.DataFrame(
        {
            "study": [part[0] for part in parts],
            "dicom_id": ["-".join(name[at : at + 8] for at in range(0, 40, 8)) for name in names],
            "view": [part[1] for part in parts],
        }
    ).astype({"study": "int64"})


def _reports(
    studies: pd.DataFrame, reported: Array, faults: Faults, rng: Generator
) -> pd.DataFrame:
    chosen = studies[reported[studies["stay"]]]
    size = len(chosen)
    text = [
        f"EXAMINATION:  {exam}\n\nINDICATION:  ___ year old patient in the ICU  // interval change"
        f"\n\nTECHNIQUE:  Chest, single or two views.\n\nCOMPARISON:  ___.\n\n{body}"
        for exam, body in zip(chosen["exam"], chosen["body"], strict=True)
    ]
    reports = pd.DataFrame(
        {
            "study": chosen.index.to_numpy(),
            "time": chosen["time"].to_numpy(),
            "kind": "RR",
            "exam": chosen["exam"].to_numpy(),
            "text": text,
        }
    )
    short = pick(size, faults.note_without_section, rng)
    reports["text"] = reports["text"].where(
        ~short, "CHEST RADIOGRAPH:  Compared to ___, no relevant change.\n"
    )
    added = reports[pick(size, faults.note_error, rng)].assign(
        kind="AR", text="ADDENDUM  The findings were discussed with ___ by telephone.\n"
    )
    again = reports[pick(size, faults.repeated_note, rng)]
    others = reports[rng.random(size) < 0.08]
    sorts = [OTHERS[k] for k in rng.integers(len(OTHERS), size=len(others)).tolist()]
    others = others.assign(
        exam=[name for name, _ in sorts],
        text=[f"EXAMINATION:  {name}{rest}" for name, rest in sorts],
    )
    reports = pd.concat([reports, added, again, others], ignore_index=True)
    reports["time"] = reports["time"].astype("datetime64[s]").dt.floor("min")
    reports["stored"] = reports["time"] + np.round(rng.exponential(5400, len(reports))).astype(
        "m8[s]"
    )
    reports["placed"] = ~studies["earlier"].to_numpy()[reports["study"]] & ~pick(
        len(reports), 0.1, rng
    )
    subject = studies["subject_id"].to_numpy()[reports["study"]]
    return reports.iloc[np.lexsort((reports["time"], subject))].reset_index(drop=True)
