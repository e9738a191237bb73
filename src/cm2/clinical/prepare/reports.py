"""Radiology reports of a stay, by section.

Which reports a stay has is chosen as for notes; only the chosen ones are parsed, in batches.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa

from cm2.clinical.prepare import notes
from cm2.clinical.prepare.engine import Engine

__all__ = ["KEPT", "SECTIONS", "split", "taken", "whole", "write_reports"]

SECTIONS = ("findings", "impression", "last_paragraph", "comparison")
USUAL = ("findings", "impression")
KEPT = ("every", "first")

# A header opens a line in capitals, or is one of the names that matter, in capitals anywhere or
# opening a line in any case; without a colon it must be alone on its line.
NAMES = "findings?(?:[ ]*(?:and|/|&)[ ]*impressions?)?|impressions?|conclusions?"
AFTER = "NOTIFICATIONS?|RECOMMENDATIONS?(?:[(]S[)])?|ADDENDUM|COMPARISONS?|TECHNIQUE|INDICATION"
HEADER = re.compile(
    r"(?:^|\n)[ \t]*(?P<line>[A-Z][A-Z ()/,&.\-]{2,60}?)[ \t]*:"
    rf"|(?:^|\n)[ \t]*(?P<any>(?i:{NAMES}))[ \t]*(?::|(?=\n))"
    rf"|(?<=\s)(?P<inside>{NAMES.upper()}|{AFTER})[ \t]*:"
)
TOP = frozenset(
    [
        "addendum",
        "attestation",
        "clinical",
        "comparison",
        "comparisons",
        "contrast",
        "dose",
        "exam",
        "examination",
        "history",
        "indication",
        "indications",
        "information",
        "notification",
        "notifications",
        "procedure",
        "provisional",
        "reason",
        "recommendation",
        "recommendations",
        "study",
        "technique",
        "wet",
    ]
)
"""Words of headers that end a section. Any other header in capitals, such as LIVER of a tomography,
is a part of the section that it stands in."""

COMPARISON = frozenset(["comparison", "comparisons"])
BLANK = re.compile(r"\n[ \t]*\n")

VIEWS = re.compile(r"\b(chest|portable|views?|lateral|frontal)\b")
OTHER = re.compile(
    r"\b(ct|cta|mr|mri|mra|us|pet|tomography|ultrasound|doppler|sonogra\w*|echo\w*|fluoro\w*|"
    r"abdomen|head|neck|spine|pelvis)\b"
)
TITLE = re.compile(r"(?:^|\n)[ \t]*(?:EXAMINATION|EXAM|STUDY|PROCEDURE)[ \t]*:[ \t\n]*([^\n]*)")


def write_reports(
    engine: Engine,
    stays: ir.Table,
    documents: ir.Table,
    path: Path,
    *,
    hours: int | float = 48,
    sections: Sequence[str] = USUAL,
    kept: str = "every",
    known_by: str = "charttime",
) -> dict[str, int]:
    """Writes the wanted sections of each stay's reports, sorted by stay and position.

    Of a report every section that it has is written, or the first; one in which none is found is
    written whole, as the section ``report``.

    Returns:
        Counts: reports left out, by reason, and sections and stays written.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown or not sections:
        raise ValueError(f"sections are {', '.join(SECTIONS)}; got {list(sections)}")
    found = notes.select(stays, documents, hours, lines=True, known_by=known_by)
    chosen = notes.batches(engine, found)
    parts = (_sections(batch, sections, kept) for batch in chosen)
    counts = notes.exclusions(engine, stays, documents, hours)
    return counts | notes.write(parts, path, "section")


def split(report: str, wanted: Sequence[str] = USUAL) -> dict[str, str]:
    r"""Splits a radiology report into its sections.

    Misspelt headers are read as the nearest name; ``findings and impression`` is an impression, and
    a header that names views stands for the findings of a chest film where no other does, as in the
    section parser of MIMIC-CXR (Johnson et al. 2019). Headers within a section, which name the
    organs in reports of tomography, magnetic resonance and ultrasound, belong to it. A report
    without findings and impression may have a ``last_paragraph``: what follows the first blank line
    of its last section.

    Args:
        report: The text, with its line breaks.
        wanted: Which of `SECTIONS`.

    Returns:
        The text of the wanted sections that are there and not empty, by name, in their order.

    Example:
        >>> split("INDICATION: Cough. FINDINGS: Clear lungs. IMPRESSION: Normal.")
        {'findings': 'Clear lungs.', 'impression': 'Normal.'}
        >>> split("FINDINGS:\nLIVER: Normal.\nSPLEEN: Normal.\nIMPRESSION: Normal.")
        {'findings': 'LIVER: Normal. SPLEEN: Normal.', 'impression': 'Normal.'}
        >>> split("COMPARISON: None.\n\nClear lungs.", ["last_paragraph", "comparison"])
        {'last_paragraph': 'Clear lungs.', 'comparison': 'None.'}
    """
    headers = list(_headers(report))
    ends = [*(header.start() for header, _ in headers[1:]), len(report)]
    bodies = [
        (name, report[header.end() : end])
        for (header, name), end in zip(headers, ends, strict=False)
    ] or [(None, report)]
    if not {name for name, body in bodies if body.strip()} & {"findings", "impression", "views"}:
        name, body = bodies.pop()
        first, *rest = BLANK.split(body, maxsplit=1)
        bodies += [(name, first), *(("last_paragraph", text) for text in rest)]
    found: dict[str, list[str]] = {}
    for name, body in bodies:
        if name and body.strip():
            found.setdefault(name, []).append(whole(body))
    views = found.pop("views", None)
    if views and "findings" not in found:
        found["findings"] = views
    return {name: " ".join(found[name]) for name in wanted if name in found}


def whole(text: str) -> str:
    """Returns a text in one line."""
    return " ".join(text.split())


def taken(sections: Mapping[str, str], wanted: Sequence[str], kept: str) -> dict[str, str]:
    """Chooses among the sections of a report.

    Args:
        sections: Their text.
        wanted: Which sections, in this order.
        kept: ``"every"`` one that is there, or the ``"first"``.
    """
    found = [(name, sections[name]) for name in wanted if sections.get(name)]
    return dict(found[:1] if kept == "first" else found)


def _headers(report: str) -> Iterator[tuple[re.Match[str], str | None]]:
    """The headers that begin or end a section, and which one each begins."""
    title = TITLE.search(report)
    film = not (title and OTHER.search(title[1].lower()))
    within = False
    for header in HEADER.finditer(report):
        text = header["line"] or header["any"] or header["inside"]
        name = _name(text)
        if name is None:
            if not TOP.intersection(re.findall(r"[a-z]+", text.lower())):
                lower = text.lower()
                if within or not (film and VIEWS.search(lower) and not OTHER.search(lower)):
                    continue
                yield header, "views"
                continue
            within = False
        else:
            within = name != "comparison"
        yield header, name


def _name(header: str) -> str | None:
    """The section that a header opens; None for one that is not wanted."""
    words = re.findall(r"[a-z]+", header.lower())
    for section in ("impression", "conclusion", "findings"):
        if difflib.get_close_matches(section, words, n=1, cutoff=0.8):
            return "impression" if section == "conclusion" else section
    return "comparison" if COMPARISON.intersection(words) else None


def _sections(batch: pa.RecordBatch, wanted: Sequence[str], kept: str) -> pa.RecordBatch:
    """One row a section; positions keep the order of the reports and of the sections in them."""
    rows: dict[str, list[int | str]] = {"row": [], "position": [], "section": [], "text": []}
    positions = batch["position"].to_pylist()
    for row, report in enumerate(batch["text"].to_pylist()):
        parts = taken(split(report, wanted), wanted, kept) or {"report": whole(report)}
        for place, (name, text) in enumerate(parts.items()):
            rows["row"].append(row)
            rows["position"].append(positions[row] * len(SECTIONS) + place)
            rows["section"].append(name)
            rows["text"].append(text)
    source = pa.array(rows["row"], pa.int64())
    return pa.RecordBatch.from_arrays(
        [
            batch["stay_id"].take(source),
            pa.array(rows["position"], pa.int64()),
            batch["hour"].take(source),
            pa.array(rows["section"], pa.string()),
            pa.array(rows["text"], pa.string()),
        ],
        schema=notes.schema("section"),
    )
