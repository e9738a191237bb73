"""`cm2 prepare`: from a folder of raw tables to a folder of samples, in one pass over each table.

Options, tables and columns are checked first, then the cohort is made, then each modality is
written for the stays that are left. The folder appears when all of it is there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Each registers its source.
from cm2.clinical.prepare import (  # noqa: F401
    collection,
    eicu_source,
    folder,
    manifest,
    meds_source,
    mimic3,
    mimic4,
    physionet2012,
    places,
    splits,
    summary,
    table,
)
from cm2.clinical.prepare import images as pictures
from cm2.clinical.prepare.collection import COLLECTIONS
from cm2.clinical.prepare.cxr_reports import Reports
from cm2.clinical.prepare.engine import Engine, start
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.request import Request
from cm2.clinical.prepare.run import Run, Say
from cm2.clinical.prepare.source import SOURCES
from cm2.core.layout import FORMAT, MANIFEST

__all__ = ["Options", "prepare"]

SHOWN = 10
"""Tables that a message names."""


def prepare(
    source: str,
    raw: Path,
    out: Path,
    options: Options | None = None,
    named: Named | None = None,
    *,
    engine: str = "duckdb",
    threads: int = 2,
    memory_limit: str | None = None,
    scratch: Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Prepares a data set, or finds that it is there already.

    Args:
        source: ``"mimic3"``, ``"mimic4"``, ``"eicu"``, ``"meds"``, ``"physionet2012"`` or
            ``"table"``.
        raw: Folder of the raw tables, or one DuckDB file.
        out: Folder to make.
        options: What decides the result.
        named: Files and folders beside the raw tables.
        engine: ``"duckdb"`` or ``"spark"``.
        threads: Threads of the engine.
        memory_limit: Of the engine, such as ``"4GB"``.
        scratch: Folder in which the engine keeps what does not fit into memory; None for one
            beside ``out``. What it writes there is gone at the end; what a run that was killed
            leaves goes with the next into ``out``.
        progress: Whether the engine shows how far it is, on the standard output.
        overwrite: Whether another result in ``out`` is replaced.
        say: Is told what is done.

    Returns:
        The manifest.

    Raises:
        TableError: Options, tables or folders are not usable.
    """
    options, named, raw, out = options or Options(), named or Named(), Path(raw), Path(out)
    if source in COLLECTIONS:
        _refuse_unused(source, options, named)
        return _collect(source, raw, out, options, named.split_file, overwrite=overwrite, say=say)
    request = Request.checked(SOURCES[source], raw, out, options, named)
    files, empty = request.look()
    settings = {"threads": threads, "memory_limit": memory_limit, "progress": progress}

    if request.images is not None and not places.has_pictures(request.pictures):
        raise MissingError(f"{request.images}: has no pictures, nor has {request.pictures}")

    def make(partial: Path) -> dict[str, Any]:
        if empty:
            say(f"tables without a row: {', '.join(empty)}")
        synthetic = manifest.is_synthetic(raw, files.values())
        with _working(engine, scratch or partial, out, settings) as backend:
            content = _write(request, backend, partial, threads, say, synthetic=synthetic)
        if request.images is not None:
            _refuse_none(request.images, request.pictures, content["counts"]["cxr"])
        return content | {
            "empty": empty,
            "synthetic": synthetic,
            "source_version": manifest.source_version(raw),
        }

    def compare(found: Mapping[str, Any]) -> None:
        _refuse_other_pictures(out, found, request.pictures)
        _refuse_other_reports(out, found, request.reports)

    return _made(out, _key_of(request, files), make, compare, overwrite=overwrite, say=say)


def _write(
    request: Request, engine: Engine, partial: Path, threads: int, say: Say, *, synthetic: bool
) -> dict[str, Any]:
    """Writes all files but the manifest, and returns what that says of them."""
    tables = request.open(engine)
    tables.check()
    run = Run(
        request.kind(tables, request.options),
        request.options,
        engine,
        partial,
        threads,
        say,
        request.reports,
        request.listed,
        request.groups,
    )
    content = run.write(request.parts, request.pictures, synthetic=synthetic)
    content["unreadable"] = dict(sorted((tables.unreadable | run.unreadable).items()))
    return content


def _refuse_unused(source: str, options: Options, named: Named) -> None:
    """Refuses what a data set whose samples are given has no use for."""
    for name, value in {
        "notes": named.notes,
        "images": named.images,
        "labels": named.labels,
        "codes": named.codes,
        "reports": named.reports,
        "notes-of": named.notes_list or options.notes_of != "all",
        "splits-from": options.splits_from,
        "lists": named.split_lists,
        "ccs": named.ccs,
        "meds": options.meds,
        "split-by": options.split_by,
    }.items():
        if value:
            raise TableError(f"{source} has no use for --{name}")


def _collect(
    source: str,
    raw: Path,
    out: Path,
    options: Options,
    split_file: Path | None,
    *,
    overwrite: bool,
    say: Say,
) -> dict[str, Any]:
    """Prepares a data set whose samples are given."""
    kind = COLLECTIONS[source]
    if options.task not in kind.tasks:
        raise TableError(f"{source} tells {', '.join(kind.tasks)} only, not {options.task}")
    given = splits.read(split_file) if split_file else None
    folder.refuse(out, raw)
    data = kind(raw)
    key = _key(source, options, data.files(options), given)
    key["task"] = kind.label or key["task"]

    def make(partial: Path) -> dict[str, Any]:
        say("reading")
        content = collection.write(data.collect(options, given), partial, options)
        content["synthetic"] = manifest.is_synthetic(raw, data.files(options).values())
        content["source_version"] = manifest.source_version(raw)
        return content

    return _made(out, key, make, overwrite=overwrite, say=say)


def _made(
    out: Path,
    key: Mapping[str, Any],
    make: Callable[[Path], dict[str, Any]],
    compare: Callable[[Mapping[str, Any]], None] = lambda found: None,
    *,
    overwrite: bool,
    say: Say,
) -> dict[str, Any]:
    """Makes a folder, or finds that it is there already, and returns its manifest."""
    found = manifest.read(out)
    if found is not None and not overwrite:
        _refuse_other(out, found, key)
        compare(found)
        say(f"{out}: holds this result already; nothing was done")
        return found
    with folder.building(out, owned=MANIFEST) as partial:
        made = manifest.write(partial, {**make(partial), **key})
    say(summary.text(made))
    return made


@contextmanager
def _working(name: str, place: Path, out: Path, settings: Mapping[str, Any]) -> Iterator[Engine]:
    """Starts an engine with a folder of its own, which is gone afterwards."""
    if not place.is_dir():
        raise MissingError(f"{place}: no such folder for --scratch")
    with folder.working(place, out) as own:
        engine = start(name, folder=own, **settings)
        try:
            yield engine
        finally:
            engine.close()


def _refuse_none(images: Path, root: Path, counts: Mapping[str, int]) -> None:
    """Refuses a folder of images in which not one of those chosen is."""
    if counts["chosen"] and counts["missing"] == counts["chosen"]:
        one = f"{root / places.level(root)}/pNN/pSUBJECT/sSTUDY/IMAGE.jpg"
        raise MissingError(
            f"{images}: none of the {counts['chosen']} chosen images is there; the first path tried"
            f" was like {one}"
        )


def _key(
    source: str, options: Options, files: Mapping[str, Path], given: Mapping[int, str] | None
) -> dict[str, Any]:
    """What two runs must agree in to give the same result, as the manifest holds it."""
    key = {
        "source": source,
        "task": options.task,
        "options": {n: v for n, v in dataclasses.asdict(options).items() if n != "task"},
        "input": manifest.fingerprint(files),
        "split_file": manifest.digest(given) if given is not None else None,
    }
    return json.loads(json.dumps(key))


def _key_of(request: Request, files: Mapping[str, Path]) -> dict[str, Any]:
    """The same, of a request."""
    options, kind = request.options, request.kind
    key = _key(kind.name, options, files, request.parts.parts if request.parts else None)
    if options.task != "none":
        key["task"] = kind.outcome or key["task"]
    key["reports"] = "texts" if request.reports and not request.reports.files else None
    if request.listed:
        key["notes_list"] = manifest.digest(dict.fromkeys(request.listed, ""))
    return key


def _refuse_other(out: Path, found: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    report = found.get("modalities", {}).get("report", {})  # earlier ones did not say of reports
    found = {"reports": "texts" if report.get("texts") else None, **found}
    if differ := [
        _difference(name, found.get(name), key[name])
        for name in sorted(key)
        if found.get(name) != key[name]
    ]:
        raise TableError(
            f"{out}: holds a result that differs in {'; '.join(differ)}. Choose another folder, or"
            " replace it with --overwrite"
        )
    same = found.get("cm2_version") == version("cm2") and found.get("format") == FORMAT
    if not same or found.get("files") != manifest.checksums(out):
        raise TableError(
            f"{out}: was changed since, or made by another version of cm2; replace it with"
            " --overwrite"
        )


def _difference(name: str, there: Any, now: Any) -> str:
    """Says what differs: which options, and which tables."""
    if not (isinstance(there, dict) and isinstance(now, dict)):
        return name
    parts = [part for part in sorted({*there, *now}) if there.get(part) != now.get(part)]
    if name == "options":
        changes = (f"{part}: {there.get(part)} there, {now.get(part)} now" for part in parts)
        return f"options ({', '.join(changes)})"
    return f"{name} ({', '.join(parts[:SHOWN])}{', ...' if len(parts) > SHOWN else ''})"


def _refuse_other_pictures(out: Path, found: Mapping[str, Any], root: Path) -> None:
    """Refuses a result whose pictures are others now: they came later, or were replaced."""
    held = found["modalities"].get("cxr", {}).get("pictures")
    if held is not None and held != pictures.fingerprint(root, out):
        raise TableError(
            f"{out}: holds a result that differs in its pictures: {pictures.arrived(root, out)}"
            " that were missing are there now, others may be replaced. Choose another folder, or"
            " replace it with --overwrite"
        )


def _refuse_other_reports(out: Path, found: Mapping[str, Any], reports: Reports | None) -> None:
    """Refuses a result whose pictures' own reports are others now."""
    if reports is None:
        return
    if found["modalities"]["report"]["texts"] != reports.fingerprint(out):
        raise TableError(
            f"{out}: holds a result that differs in its reports: some came later, or were"
            " replaced. Choose another folder, or replace it with --overwrite"
        )
