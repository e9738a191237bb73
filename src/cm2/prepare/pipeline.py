"""`cm2 prepare`: from a folder of raw tables to a folder of samples, in one pass over each table.

Options, tables and columns are checked first, then the cohort is made, then each modality is
written for the stays that are left. The folder appears when all of it is there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Each registers its source.
from cm2.prepare import (  # noqa: F401
    collection,
    eicu_source,
    folder,
    lists,
    manifest,
    meds_source,
    mimic3,
    mimic4,
    noted,
    phenotypes,
    physionet2012,
    places,
    splits,
    summary,
    table,
)
from cm2.prepare import images as pictures
from cm2.prepare.collection import COLLECTIONS
from cm2.prepare.cxr_reports import SECTIONED, Reports
from cm2.prepare.engine import Engine, start
from cm2.prepare.errors import MissingError, TableError
from cm2.prepare.options import Options
from cm2.prepare.run import Run, Say
from cm2.prepare.source import SOURCES, Source
from cm2.prepare.tables import Tables

__all__ = ["Options", "prepare"]

SHOWN = 10
"""Tables that a message names."""


def prepare(
    source: str,
    raw: Path,
    out: Path,
    options: Options | None = None,
    *,
    split_file: Path | None = None,
    split_lists: Path | None = None,
    notes: Path | None = None,
    notes_list: Path | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    codes: Path | None = None,
    reports: Path | None = None,
    ccs: Sequence[Path] = (),
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
        split_file: CSV file with the columns ``subject_id`` and ``split``, in the place of a seed.
        split_lists: Folder of the published lists that the options name.
        notes: Folder of the notes where it is not ``raw/note``.
        notes_list: CSV file with the column ``stay_id``, if notes are read of a list of stays.
        images: Folder of MIMIC-CXR-JPG where it is not ``raw/cxr``.
        labels: Samples and outcomes of MEDS, see `meds_source`.
        codes: Map from codes of MEDS to variables, see `codes`.
        reports: MIMIC-CXR's own reports, a folder or the file of their sections, to be joined to
            the images in the place of the reports in ``raw/note``.
        ccs: For the task ``"phenotyping"``, HCUP's single-level CCS, a file for each version of
            ICD in the tables, see `phenotypes.read`.
        engine: ``"duckdb"`` or ``"spark"``.
        threads: Threads of the engine.
        memory_limit: Of the engine, such as ``"4GB"``.
        scratch: Folder in which the engine keeps what does not fit into memory; None for one
            beside ``out``. What it writes there is gone at the end.
        progress: Whether the engine shows how far it is, on the standard output.
        overwrite: Whether another result in ``out`` is replaced.
        say: Is told what is done.

    Returns:
        The manifest.

    Raises:
        TableError: Options, tables or folders are not usable.
    """
    options, raw, out = options or Options(), Path(raw), Path(out)
    if source in COLLECTIONS:
        for name, value in {
            "notes": notes,
            "images": images,
            "labels": labels,
            "codes": codes,
            "reports": reports,
            "notes-of": notes_list or options.notes_of != "all",
            "splits-from": options.splits_from,
            "lists": split_lists,
            "ccs": ccs,
            "meds": options.meds,
            "split-by": options.split_by,
        }.items():
            if value:
                raise TableError(f"{source} has no use for --{name}")
        return _collect(source, raw, out, options, split_file, overwrite=overwrite, say=say)
    kind = SOURCES[source]
    if options.task not in kind.tasks:
        raise TableError(
            f"{source} does not allow the task {options.task}, only {', '.join(kind.tasks)}:"
            f" {kind.untold.get(options.task, 'its tables do not tell')}"
        )
    given = _given(source, options, split_file, split_lists)
    listed = _listed(kind, options, notes_list)
    groups = _groups(ccs, options)
    folder.refuse(out, raw)
    elsewhere = kind.named(raw, labels=labels, codes=codes)
    if notes is not None:
        elsewhere |= places.notes(Path(notes), kind.note_tables, source)
    if images is not None:
        images = Path(images)
        elsewhere |= places.tables_of_images(images, kind.image_tables, source)
    own: Reports | None = None
    if reports is not None:
        pictured = bool(kind.image_tables)
        own = Reports(places.reports(Path(reports), SECTIONED, source, pictured=pictured))
    with _open(kind, options, raw, elsewhere) as tables:
        files = tables.files | {f"ccs_icd{n}": one.path for n, one in groups.items()}
        empty = tables.empty
        if (images or own) and kind.image_tables[0] not in tables:
            raise MissingError(
                f"{images or raw}: the table {kind.image_tables[0]} is not in it"
                + (", and --reports join the images" if own else "")
            )
    if hollow := [str(files[name]) for name in empty if name in kind.filled and name in files]:
        raise TableError(f"{', '.join(hollow)}: a header and no row")
    root = places.pictures(images, raw / "cxr")
    if own is not None:
        files = files | own.files
    key = _key(source, options, files, given.parts if given else None)
    key["task"] = key["task"] if options.task == "none" else kind.outcome or key["task"]
    key |= {"notes_list": manifest.digest(dict.fromkeys(listed, ""))} if listed else {}
    synthetic = manifest.is_synthetic(raw, files.values())

    def make(partial: Path) -> dict[str, Any]:
        if empty:
            say(f"tables without a row: {', '.join(empty)}")
        with _workplace(partial, scratch) as work:
            backend = start(
                engine,
                threads=threads,
                memory_limit=memory_limit,
                folder=work,
                progress=progress,
            )
            try:
                tables = _open(kind, options, raw, elsewhere, backend)
                tables.check()
                made = kind(tables, options)
                run = Run(made, options, backend, partial, threads, say, own, listed, groups)
                content = run.write(given, root, synthetic=synthetic)
            finally:
                backend.close()
        if images is not None:
            _refuse_none(images, root, content["counts"]["cxr"])
        content["unreadable"] = dict(sorted((tables.unreadable | run.unreadable).items()))
        content["empty"] = empty
        content["synthetic"] = synthetic
        content["source_version"] = manifest.source_version(raw)
        return content

    def compare(found: Mapping[str, Any]) -> None:
        _refuse_other_pictures(out, found, root)
        if own is not None and found["modalities"]["report"]["texts"] != own.fingerprint(out):
            raise TableError(
                f"{out}: holds a result that differs in its reports: some came later, or were"
                " replaced. Choose another folder, or replace it with --overwrite"
            )

    return _made(out, key, make, compare, overwrite=overwrite, say=say)


def _given(
    source: str, options: Options, split_file: Path | None, split_lists: Path | None
) -> splits.Given | None:
    """Reads who is in which part, where that is given."""
    if bool(options.splits_from) != bool(split_lists):
        raise TableError("--splits-from needs --lists, the folder of the lists, and the reverse")
    if split_file and split_lists:
        raise TableError("--splits and --splits-from are two ways to split; give one")
    if split_lists:
        return lists.read(str(options.splits_from), Path(split_lists), source)
    return splits.Given(splits.read(split_file)) if split_file else None


def _listed(kind: type[Source], options: Options, notes_list: Path | None) -> list[int] | None:
    """Reads the stays whose notes are read, where they are given."""
    if options.notes_of != "all" and kind.text != "notes":
        raise TableError(f"{kind.name} has no clinical notes; leave --notes-of")
    if (options.notes_of == "list") != (notes_list is not None):
        raise TableError("notes of a list of stays need its file")
    return None if notes_list is None else noted.read(Path(notes_list))


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
    with folder.building(out, owned=manifest.NAME) as partial:
        made = manifest.write(partial, {**make(partial), **key})
    say(summary.text(made))
    return made


def _groups(ccs: Sequence[Path], options: Options) -> dict[int, phenotypes.CCS]:
    """Reads the groups of diagnoses for the task that needs them."""
    if bool(ccs) != (options.task == phenotypes.TASK):
        raise TableError(
            f"the task {options.task} has no use for --ccs"
            if ccs
            else f"the task {options.task} needs the groups of diagnoses, which are not shipped:"
            " give --ccs FILE, HCUP's single-level CCS (for MIMIC-IV the files of ICD-9 and ICD-10,"
            " with a comma between them)"
        )
    return phenotypes.read([Path(path) for path in ccs])


def _open(
    kind: type[Source],
    options: Options,
    raw: Path,
    given: Mapping[str, Path],
    engine: Engine | None = None,
) -> Tables:
    return Tables(
        raw,
        {**kind.wanted, **kind.outcomes.get(options.task, {})},
        optional=kind.optional,
        lazy=kind.lazy,
        subfolders=kind.subfolders,
        given=given,
        engine=engine,
    )


@contextmanager
def _workplace(partial: Path, scratch: Path | None) -> Iterator[Path]:
    """Gives a folder to the engine, which is gone afterwards."""
    if scratch is not None and not scratch.is_dir():
        raise MissingError(f"{scratch}: no such folder for --scratch")
    with TemporaryDirectory(prefix="cm2-", dir=scratch or partial) as work:
        yield Path(work)


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


def _refuse_other(out: Path, found: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    if differ := [
        _difference(name, found.get(name), key[name])
        for name in sorted(key)
        if found.get(name) != key[name]
    ]:
        raise TableError(
            f"{out}: holds a result that differs in {'; '.join(differ)}. Choose another folder, or"
            " replace it with --overwrite"
        )
    same = found.get("cm2_version") == version("cm2") and found.get("format") == manifest.FORMAT
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
