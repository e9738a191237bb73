"""What MIMIC-III and MIMIC-IV have in common: who was where, and what was charted.

Columns have the names of MIMIC-IV. Where the two differ in words, they say so as data; where one
has further columns, its own module adds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.random import Generator

from cm2.clinical.synthesize import charting, rows
from cm2.clinical.synthesize import diagnoses as codes
from cm2.clinical.synthesize.episodes import Episodes
from cm2.clinical.synthesize.faults import Faults
from cm2.clinical.synthesize.latents import MODALITIES

__all__ = [
    "Words", "admissions", "charted", "d_items", "d_labitems", "discharge_codes", "icustays",
    "laid_out", "measured", "moves", "services", "tested",
]  # fmt: skip

IDS = ["subject_id", "hadm_id"]
SERVICES = {
    "MICU": "MED", "SICU": "SURG", "CCU": "CMED", "CSRU": "CSURG", "TSICU": "TRAUM", "NICU": "NB",
}  # fmt: skip

Array = np.ndarray


class Words(NamedTuple):
    """How a version writes an admission.

    Attributes:
        kinds: Types of admission, that through the emergency department first.
        shares: How often each is drawn; None for equally often.
        places: Where emergencies come from, and where all others do.
        left: Where the living go.
        dead: What stands there of the dead.
    """

    kinds: Sequence[str]
    shares: Sequence[float] | None
    places: tuple[str, str]
    left: Sequence[str]
    dead: str


def laid_out(table: pd.DataFrame | pa.Table, columns: str) -> pd.DataFrame | pa.Table:
    """Returns the columns of a file, in its order.

    Args:
        table: May have further ones.
        columns: Their names, separated by spaces.
    """
    names = columns.split()
    return table[names] if isinstance(table, pd.DataFrame) else table.select(names)


def admissions(found: Episodes, words: Words, rng: Generator) -> pd.DataFrame:
    """Admissions: times, and how a patient came and left.

    Args:
        found: Who was where.
        words: Of the version.
        rng: Source of randomness.
    """
    known = found.admissions
    size = len(known)
    died = known["deathtime"].notna().to_numpy()
    newborn = known["newborn"].to_numpy()
    kind = rng.choice(words.kinds, size, p=words.shares)
    emergency = (kind == words.kinds[0]) & ~newborn
    arrived = known["admittime"] - pd.to_timedelta(rng.integers(60, 480, size), unit="min")
    left = rng.choice(words.left, size)
    return known[[*IDS, "admittime", "dischtime", "deathtime"]].assign(
        admission_type=np.where(newborn, "NEWBORN", kind),
        admission_location=np.where(emergency, *words.places),
        discharge_location=np.where(died, words.dead, left),
        edregtime=arrived.where(emergency),
        edouttime=(known["admittime"] + pd.Timedelta(minutes=47)).where(emergency),
        hospital_expire_flag=died.astype(int),
    )


def icustays(stays: pd.DataFrame, units: Mapping[str, str], *, digits: int) -> pd.DataFrame:
    """Stays; the length is negative where the written end precedes the start.

    Args:
        stays: Who was where.
        units: What the version calls a unit.
        digits: Decimals of the length in days.
    """
    days = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 86400
    return stays[[*IDS, "stay_id", "intime", "outtime"]].assign(
        first_careunit=stays["first_unit"].map(units),
        last_careunit=stays["last_unit"].map(units),
        los=days.round(digits),
    )


def moves(found: Episodes, units: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The move into each stay, and the one out of it to the ward, whose unit is left to say.

    Args:
        found: Who was where.
        units: What the version calls a unit.
    """
    stays = found.stays
    into = stays[[*IDS, "stay_id", "intime"]].assign(
        outtime=stays["end"],
        eventtype=np.where(stays["admission"].duplicated(), "transfer", "admit"),
        careunit=stays["first_unit"].map(units),
    )
    discharge = found.admissions["dischtime"].to_numpy()[stays["admission"]]
    return into, into.assign(intime=stays["end"], outtime=discharge, eventtype="transfer")


def services(found: Episodes) -> pd.DataFrame:
    """Services, one row an admission."""
    first = found.stays[~found.stays["admission"].duplicated()].reset_index(drop=True)
    return first[IDS].assign(
        transfertime=first["intime"],
        prev_service=pd.array([None] * len(first), dtype="string"),
        curr_service=first["first_unit"].map(SERVICES),
    )


def d_items(systems: Sequence[str]) -> pd.DataFrame:
    """The charted items of the catalogue.

    Args:
        systems: Whose.
    """
    charted = [item for item in charting.items() if item.system in systems]
    return pd.DataFrame(
        {
            "itemid": [item.itemid for item in charted],
            "label": [item.label for item in charted],
            "abbreviation": [item.abbreviation for item in charted],
            "dbsource": [item.system for item in charted],
            "linksto": "chartevents",
            "category": [item.category for item in charted],
            "unitname": [item.unit if item.system == "metavision" else None for item in charted],
            "param_type": [item.parameter for item in charted],
        }
    )


def d_labitems() -> pd.DataFrame:
    """The laboratory items of the catalogue."""
    labs = [item for item in charting.items() if item.system == "lab"]
    return pd.DataFrame(
        {
            "itemid": [item.itemid for item in labs],
            "label": [item.label for item in labs],
            "fluid": [item.abbreviation for item in labs],
            "category": [item.category for item in labs],
            "loinc_code": [item.parameter for item in labs],
        }
    )


def discharge_codes(found: Episodes, rng: Generator) -> pd.DataFrame:
    """Diagnoses of admissions, with the rows of the admission and of the code."""
    drawn = codes.draw(found.stays, found.severity, found.readable, rng)
    stayed = found.admissions.iloc[drawn["admission"]].reset_index(drop=True)
    return pd.concat([stayed[IDS], drawn], axis=1)


def charted(
    found: Episodes, system: Array, faults: Faults, rng: Generator, *, flags: bool
) -> pd.DataFrame:
    """Draws the rows of the chart, as :func:`cm2.clinical.synthesize.rows.spread` gives them.

    Args:
        found: Who was where.
        system: Of each stay.
        faults: Their rates.
        rng: Source of randomness.
        flags: Whether rows may be flagged as errors.
    """
    readable = found.readable[:, MODALITIES.index("series")]
    chart = charting.chart(found.stays, readable, system, faults, rng)
    return rows.spread(chart, found.stays, faults, rng, flags=flags)


def tested(found: Episodes, faults: Faults, rng: Generator) -> pd.DataFrame:
    """Draws the rows of the laboratory, as :func:`charted`."""
    readable = found.readable[:, MODALITIES.index("series")]
    drawn = charting.laboratory(found.stays, readable, faults, rng)
    return rows.spread(drawn, found.stays, faults, rng, flags=False)


def measured(events: pd.DataFrame, stays: pd.DataFrame) -> dict[str, Array | pa.Array]:
    """The columns of events that both versions have.

    Args:
        events: Of :func:`charted` or :func:`tested`.
        stays: Whose they are.
    """
    whose = stays.iloc[events["stay"]]
    return {
        **{name: whose[name].to_numpy() for name in (*IDS, "stay_id")},
        "itemid": events["itemid"].to_numpy(),
        "charttime": rows.seconds(events["charttime"]),
        "storetime": rows.seconds(events["storetime"]),
        "value": rows.texts(events["number"], events["text"]),
        "valuenum": pa.array(events["number"], from_pandas=True),
        "valueuom": pa.array(events["unit"], type=pa.string(), from_pandas=True),
    }
