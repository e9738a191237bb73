"""The report of a preparation, as text: counts only, from the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cm2.core.layout import SPLITS

__all__ = ["text"]


def text(manifest: Mapping[str, Any]) -> str:
    """Writes what happened: cohort, outcome, modalities, and what is missing or was left out.

    Args:
        manifest: Of a prepared folder.
    """
    made = " (SYNTHETIC, no patients)" if manifest["synthetic"] else ""
    hours = f"{manifest['options']['hours']:g}"
    blocks = [
        f"{manifest['source']}{made}: {manifest['task']}, window of {hours} h",
        _table("Cohort", manifest["flow"]),
        _table("Outcome", _outcome(manifest)),
        _table("Stays with each modality", _modalities(manifest)),
        _table("Patients with each set of modalities", _sets(manifest)),
        _table("In no published list, so in training", _counts(manifest, "in no list")),
        _table("Stays whose notes are read", _counts(manifest, "notes read")),
        _missing(manifest),
        _table("Codes", manifest["counts"].get("codes", {}).items()),
        _table("Codes of diagnoses", manifest["counts"].get("diagnoses", {}).items()),
        _table("Measurements left out", _nested(manifest["measurements_left_out"])),
        _table("Measurements that count, by when they were entered", _counts(manifest, "entered")),
        *(
            _table(f"Rows of {name}", counts.items())
            for name, counts in manifest["counts"].items()
            if name in manifest["modalities"] and name != "series" and len(counts) > 1
        ),
        _table("Values that could not be read", manifest["unreadable"].items()),
        _table("Tables without a row", ((name, 0) for name in manifest.get("empty", ()))),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _outcome(manifest: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for part in SPLITS:
        numbers = manifest["counts"]["stays"][part]
        if manifest["classes"] != 2:
            several = f", {numbers['positive']} with a label" if manifest.get("labels") else ""
            yield part, f"{numbers['stays']} stays{several}"
            continue
        share = 100 * numbers["positive"] / max(numbers["stays"], 1)
        yield part, f"{numbers['stays']} stays, {numbers['positive']} positive ({share:.1f}%)"
    for kind, number in manifest["positives"].items():
        whose = "positives that" if manifest["classes"] == 2 else "stays that"
        yield f"{'stays with' if manifest.get('labels') else whose} {kind}", number


def _modalities(manifest: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, facts in manifest["modalities"].items():
        yield name, facts["stays"]
    for name, number in manifest["removed"].items():
        yield f"{name}, removed at random", number
    if "events" in manifest["counts"]:
        yield "observations in the long form", manifest["counts"]["events"]
    for name, reason in manifest["absent"].items():
        yield name, f"none: {reason}"


def _sets(manifest: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for one in manifest.get("sets", ()):
        yield " + ".join(one["modalities"]) or "none", f"{one['patients']} ({one['stays']} stays)"


def _counts(manifest: Mapping[str, Any], name: str) -> Iterable[tuple[str, Any]]:
    yield from manifest["counts"].get(name, {}).items()


def _missing(manifest: Mapping[str, Any]) -> str:
    series = manifest["counts"].get("series")
    if not series:
        return ""
    return _table("Stays without any value of a variable", series["stays without"].items())


def _nested(counts: Mapping[str, Mapping[str, int]]) -> Iterable[tuple[str, int]]:
    totals: dict[str, int] = {}
    for reasons in counts.values():
        for reason, number in reasons.items():
            totals[reason] = totals.get(reason, 0) + number
    return totals.items()


def _table(title: str, rows: Iterable[Any]) -> str:
    pairs = [(str(name), str(value)) for name, value in rows]
    if not pairs:
        return ""
    width = max(len(name) for name, _ in pairs)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>8}" for name, value in pairs)])
