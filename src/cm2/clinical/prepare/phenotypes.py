"""Phenotyping: which of 25 groups of diagnoses an admission was given, from its codes.

The groups are those of the MIMIC-III benchmark (Harutyunyan et al. 2019, Scientific Data 6:96,
table 6 and `hcup_ccs_2015_definitions.yaml` of its code): 25 categories of the single-level
Clinical Classifications Software (CCS) of the Healthcare Cost and Utilization Project (HCUP),
Agency for Healthcare Research and Quality. Which codes a category has is in HCUP's own files,
``$dxref 2015.csv`` for ICD-9-CM and ``ccs_dx_icd10cm_2019_1.csv`` for ICD-10-CM, which the user
gives; the numbers of these categories are the same in both.

Codes are written when a patient has left. They are outcomes here, and never an input.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare.cohort import Cohort
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.stays import LABEL

__all__ = ["CCS", "PHENOTYPES", "TASK", "label", "plain", "read"]

TASK = "phenotyping"

PHENOTYPES: dict[str, int] = {
    "acute_renal_failure": 157,
    "acute_cerebrovascular_disease": 109,
    "acute_myocardial_infarction": 100,
    "cardiac_dysrhythmias": 106,
    "chronic_kidney_disease": 158,
    "copd_and_bronchiectasis": 127,
    "complications_of_care": 238,
    "conduction_disorders": 105,
    "congestive_heart_failure": 108,
    "coronary_atherosclerosis": 101,
    "diabetes_with_complications": 50,
    "diabetes_without_complication": 49,
    "lipid_disorders": 53,
    "essential_hypertension": 98,
    "fluid_and_electrolyte_disorders": 55,
    "gastrointestinal_hemorrhage": 153,
    "hypertension_with_complications": 99,
    "other_liver_diseases": 151,
    "other_lower_respiratory_disease": 133,
    "other_upper_respiratory_disease": 134,
    "pleurisy_pneumothorax_collapse": 130,
    "pneumonia": 122,
    "respiratory_failure": 131,
    "septicemia": 2,
    "shock": 249,
}
"""The CCS category of each group, in the order of the benchmark's lists."""

CODES = {"ICD-9-CM CODE": 9, "ICD-10-CM CODE": 10}
CATEGORY = "CCS CATEGORY"
HEADER = 10
"""Lines among which the header must be; a note precedes it in HCUP's file of ICD-9."""


class CCS(NamedTuple):
    """The categories of the codes of one version of ICD, and the file they are from."""

    path: Path
    categories: dict[str, int]


def read(paths: Sequence[Path]) -> dict[int, CCS]:
    """Reads single-level CCS files as HCUP publishes them.

    Args:
        paths: One file for each version of ICD.

    Returns:
        By version, 9 or 10; codes have no points.

    Raises:
        TableError: A file is none of these, or two are of one version.
    """
    found: dict[int, CCS] = {}
    for path in paths:
        version, categories = _file(path)
        if version in found:
            raise TableError(f"{path}: a second CCS file of ICD-{version}; one of each is read")
        found[version] = CCS(path, categories)
    return found


def _file(path: Path) -> tuple[int, dict[str, int]]:
    if not path.is_file():
        raise MissingError(f"{path}: no such file of CCS categories")
    # Names and codes stand in single quotes, which are no quotes of CSV: they are taken off.
    with path.open(encoding="latin-1", newline="") as lines:
        rows = ([field.strip(" '\t") for field in row] for row in csv.reader(lines))
        for _, header in zip(range(HEADER), rows, strict=False):
            code = next((name for name in CODES if name in header), None)
            if code is not None and CATEGORY in header:
                break
        else:
            raise TableError(
                f"{path}: no header with {' or '.join(CODES)} and {CATEGORY}; HCUP's single-level"
                " CCS is wanted, such as '$dxref 2015.csv' or ccs_dx_icd10cm_2019_1.csv"
            )
        places = header.index(code), header.index(CATEGORY)
        pairs = [[row[place] for place in places] for row in rows if len(row) > max(places)]
    codes = {plain(code): int(group) for code, group in pairs if code and group.isdecimal()}
    if lacking := sorted(set(PHENOTYPES.values()) - set(codes.values())):
        raise TableError(
            f"{path}: has no code of the CCS categories {lacking}; a whole single-level CCS is"
            f" wanted, with all of the {len(PHENOTYPES)} groups"
        )
    return CODES[header[places[0]]], codes


def plain(code: str) -> str:
    """Writes a code without its point, as MIMIC does.

    Args:
        code: Such as ``038.9``.

    Example:
        >>> plain(" 038.9 ")
        '0389'
    """
    return code.replace(".", "").strip().upper()


def label(
    engine: Engine,
    cohort: Cohort,
    diagnoses: ir.Table,
    groups: Mapping[int, CCS],
) -> tuple[ir.Table, dict[str, int]]:
    """Labels the stays that are kept; those without any code are excluded and counted.

    Args:
        engine: Where the work is done.
        cohort: Stays; those whose admission has a code are picked in place.
        diagnoses: ``hadm_id``, ``code`` and ``version``, as a source gives them.
        groups: What `read` returned.

    Returns:
        ``stay_id``, a column of zeros and ones for each group, and ``label`` and ``kind``, which
        are null; and how many codes there were.

    Raises:
        TableError: Codes are of a version for which no file was given, or no code is known.
    """
    told = diagnoses.filter(diagnoses.code.notnull(), diagnoses.version.notnull())
    told = told.mutate(code=told.code.replace(".", "").strip().upper())
    listed = engine.keep("diagnoses", told.semi_join(cohort.kept, "hadm_id").distinct())
    _refuse_unread(engine, listed, groups)
    rows = [
        (v, code, number) for v, one in groups.items() for code, number in one.categories.items()
    ]
    known = ibis.memtable(pd.DataFrame(rows, columns=["version", "code", "category"]))
    joined = engine.keep("categories", listed.left_join(known, ["version", "code"]))
    counts = engine.frame(joined.agg(every=joined.count(), known=joined.category.count())).iloc[0]
    found = {
        "codes": int(counts["every"]),
        "of no category": int(counts["every"] - counts["known"]),
    }
    if found["codes"] and not counts["known"]:
        raise TableError(f"none of the {found['codes']} codes of diagnoses is in the CCS files")
    names = {
        f"{LABEL}{name}": (joined.category == number).fill_null(False).cast("int64").max()
        for name, number in PHENOTYPES.items()
    }
    coded = engine.keep("phenotypes", joined.group_by("hadm_id").agg(**names))
    cohort.exclude(engine, "no code of a diagnosis", cohort.kept.semi_join(coded, "hadm_id"))
    labels = cohort.kept.select("stay_id", "hadm_id").inner_join(coded, "hadm_id")
    labels = labels.select("stay_id", *names, label=ibis.null("int64"), kind=ibis.null("string"))
    return engine.keep("labels", labels), found


def _refuse_unread(engine: Engine, listed: ir.Table, groups: Mapping[int, CCS]) -> None:
    """Refuses codes of a version without a file: their stays would have no group at all."""
    frame = engine.frame(listed.group_by("version").agg(codes=listed.count()))
    for version, number in frame.itertuples(index=False):
        if version not in groups:
            raise TableError(
                f"{number} codes of diagnoses are of ICD-{version}, but the CCS file(s) given are"
                f" of ICD-{', ICD-'.join(map(str, sorted(groups)))}; name a file of each version,"
                " with a comma between them"
            )
