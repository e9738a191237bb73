"""MIMIC-CXR's own reports of the studies that have pictures: as texts, and as a table of sections.

The table is what MIMIC-CXR's programs make of the texts; here it is written from what the texts
were made of, so that a reader of texts can be held against it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.files import mark
from cm2.clinical.synthesize.studies import Studies

__all__ = ["write"]

SECTIONS = ("impression", "findings", "last_paragraph", "comparison")
HEAD = """                                 FINAL REPORT  (SYNTHETIC, no patient)
 EXAMINATION:  {exam}

 INDICATION:  ___ year old patient in the ICU  // interval change

 COMPARISON:  {comparison}
"""


def write(folder: Path, drawn: Studies, faults: Faults, rng: Generator) -> None:
    """Writes ``files/pNN/pSUBJECT/sSTUDY.txt`` and ``mimic_cxr_sectioned.csv``.

    Args:
        folder: An empty folder.
        drawn: The studies; those without pictures are left out.
        faults: Rates of reports that are not there, and of those without the usual headers.
        rng: Source of randomness.
    """
    mark(folder)
    studies = drawn.studies.iloc[np.unique(drawn.images["study"])].sort_values("study_id")
    lost = pick(len(studies), faults.lost_report, rng)
    plain = pick(len(studies), faults.note_without_section, rng) & ~lost
    bare = rng.random(len(studies)) < 0.1
    rows = []
    for place, study in enumerate(studies.itertuples()):
        if lost[place]:
            continue
        sections = _sections(str(study.body), plain=bool(plain[place]), bare=bool(bare[place]))
        name = f"s{study.study_id}"
        path = folder / "files" / f"p{str(study.subject_id)[:2]}" / f"p{study.subject_id}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{name}.txt").write_text(_text(str(study.exam), sections), encoding="utf-8")
        rows.append({"study": name, **sections})
    table = pd.DataFrame(rows, columns=["study", *SECTIONS])
    table.to_csv(folder / "mimic_cxr_sectioned.csv", index=False, lineterminator="\n")


def _sections(body: str, *, plain: bool, bare: bool) -> dict[str, str]:
    """What a report says: all, its impression alone, or without the usual headers."""
    findings, impression = body.removeprefix("FINDINGS:").split("IMPRESSION:")
    said = {"impression": impression.strip(), "comparison": "Radiograph of ___."}
    if plain:
        return {"last_paragraph": said["impression"], "comparison": said["comparison"]}
    return said if bare else {**said, "findings": findings.strip()}


def _text(exam: str, sections: dict[str, str]) -> str:
    parts = [HEAD.format(exam=exam, comparison=sections["comparison"])]
    for name in ("findings", "impression"):
        if name in sections:
            parts.append(f" {name.upper()}:\n\n{sections[name]}\n")
    if "last_paragraph" in sections:
        parts.append(f"{sections['last_paragraph']}\n")
    return "\n".join(parts)
