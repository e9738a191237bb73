"""Chest X-rays of a stay, from MIMIC-CXR-JPG: which one, and its pixels in one compact file.

What is chosen is an Ibis expression on the normalised tables ``stays`` and ``images``; X-rays join
by patient and study time, since the tables of MIMIC-CXR name no admission. Decoding is by Pillow
in several threads. Johnson et al. (2019), MIMIC-CXR-JPG, a large publicly available database of
labeled chest radiographs, https://arxiv.org/abs/1901.07042.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cm2.clinical.prepare import manifest, places
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.notes import SELECTIONS
from cm2.clinical.prepare.tables import refuse_unreadable, unread
from cm2.core.pictures import SIDE, decode

__all__ = [
    "CHEXPERT",
    "arrived",
    "fingerprint",
    "inside",
    "select",
    "studies",
    "write_images",
]

CHEXPERT = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "enlarged_cardiomediastinum",
    "fracture",
    "lung_lesion",
    "lung_opacity",
    "no_finding",
    "pleural_effusion",
    "pleural_other",
    "pneumonia",
    "pneumothorax",
    "support_devices",
)
"""Labels that CheXpert reads from reports: 1, 0, -1 (uncertain), or null (not mentioned)."""

UNREADABLE = "images-unreadable.csv"

BATCH = 1024
"""Images whose pixels are held at once."""


def studies(metadata: ir.Table, chexpert: ir.Table | None = None) -> ir.Table:
    """Normalises the tables of MIMIC-CXR-JPG.

    Args:
        metadata: One row an image, all columns as text, with ``subject_id``, ``study_id``,
            ``dicom_id``, ``viewposition``, ``studydate`` (yyyymmdd) and ``studytime``
            (hhmmss.fff, the leading zeros of which are lost).
        chexpert: Labels, one row a study: ``subject_id``, ``study_id``, and labels named as in the
            file (``Pleural Effusion``) or as in ``CHEXPERT``. Without it all labels are null.

    Returns:
        ``subject_id, study_id, dicom_id, time, view, path`` and the labels; ``time`` is null where
        date or time cannot be read, and ``path`` is relative to the folder of the data set.
    """
    subject, study = metadata.subject_id, metadata.study_id
    date, clock = metadata.studydate.cast("string"), metadata.studytime.cast("string")
    time = _study_time(date, clock)
    lost = time.isnull() & date.strip().nullif("").notnull() & clock.strip().nullif("").notnull()
    images = metadata.select(
        subject_id=subject.cast("int64"),
        study_id=study.cast("int64"),
        dicom_id=metadata.dicom_id.cast("string"),
        time=time,
        view=metadata.viewposition.strip().upper(),
        path=_path(subject.cast("string"), study.cast("string"), metadata.dicom_id),
        unreadable=lost.ifelse("time of the study", ibis.null("string")),
    )
    if chexpert is None:
        return images.mutate(**{label: ibis.null("float64") for label in CHEXPERT})
    there = {column.strip().lower().replace(" ", "_"): column for column in chexpert.columns}
    labels = chexpert.select(
        study_id=chexpert[there["study_id"]].cast("int64"),
        **{
            label: chexpert[there[label]].cast("float64")
            if label in there
            else ibis.null("float64")
            for label in CHEXPERT
        },
    ).distinct(on="study_id", keep="first")
    joined = images.left_join(labels, "study_id")
    return joined.select(*images.columns, *CHEXPERT)


def select(
    stays: ir.Table,
    images: ir.Table,
    hours: int | float = 48,
    *,
    selection: str = "window",
    views: Sequence[str] = ("AP", "PA"),
) -> ir.Table:
    """Chooses the last image of each stay that was taken in one of the views.

    Args:
        stays: Normalised stays, one row each.
        images: Normalised images.
        hours: Length of the window from ``intime``.
        selection: ``"window"`` looks at ``[intime, intime + hours)``; ``"reference"``, as the code
            of Wu et al. (2025), takes AP images only and includes the moment the window ends.
        views: Views to choose from; not read with ``"reference"``.

    Returns:
        ``stay_id, hour, view, path`` and the labels, at most one row a stay. Of images of one
        moment the one of the greatest study, then image, is taken.
    """
    found = inside(stays, images, hours, selection=selection, views=views)
    latest = ibis.window(
        group_by="stay_id",
        order_by=[ibis.desc("time"), ibis.desc("study_id"), ibis.desc("dicom_id")],
    )
    found = found.mutate(
        back=ibis.row_number().over(latest),
        hour=(found.time.epoch_seconds() - found.intime.epoch_seconds()).cast("float64") / 3600,
    )
    return found.filter(found.back == 0).select("stay_id", "hour", "view", "path", *CHEXPERT)


def inside(
    stays: ir.Table,
    images: ir.Table,
    hours: int | float,
    *,
    selection: str,
    views: Sequence[str],
) -> ir.Table:
    """Finds the images of each stay that ``select`` chooses among.

    Args:
        stays: As in ``select``; so the others.
        images: Normalised images.
        hours: Length of the window.
        selection: Which images.
        views: Which views.

    Returns:
        Images beside ``stay_id`` and ``intime``.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection is one of {', '.join(SELECTIONS)}, not {selection!r}")
    if not views:
        raise ValueError("views must name at least one, such as AP or PA")
    wanted = ("AP",) if selection == "reference" else tuple(view.upper() for view in views)
    keys = stays.select("stay_id", "subject_id", "intime")
    joined = images.join(keys, "subject_id").filter(lambda t: t["view"].isin(wanted))
    end = joined.intime + ibis.interval(seconds=round(hours * 3600))
    before = joined.time <= end if selection == "reference" else joined.time < end
    return joined.filter(joined.time >= joined.intime, before)


def write_images(
    engine: Engine,
    stays: ir.Table,
    images: ir.Table,
    root: Path,
    out: Path,
    *,
    hours: int | float = 48,
    selection: str = "window",
    views: Sequence[str] = ("AP", "PA"),
    threads: int = 2,
) -> dict[str, int]:
    """Writes the image of each stay that has one.

    An image that is missing or cannot be decoded counts as absent and is listed, by its path in
    the data set and what went wrong, in ``images-unreadable.csv``.

    Args:
        engine: Where the choice is computed.
        stays: Normalised stays.
        images: Normalised images.
        root: Folder that the images' paths are relative to.
        out: Folder for ``images.npy`` (pixels), ``images.parquet`` (the stay of each row, its
            hour, view, path and labels) and the list of unreadable images.
        hours: As in ``select``; so the next two.
        selection: Which images.
        views: Which views.
        threads: Images decoded at once.

    Returns:
        Counts: images without a study time, with one that cannot be read, images chosen, missing,
        unreadable, written.
    """
    times = _times(engine, stays, images)
    chosen = select(stays, images, hours, selection=selection, views=views).order_by("stay_id")
    table = pa.Table.from_batches((batch.cast(SCHEMA) for batch in engine.batches(chosen)), SCHEMA)
    paths = table["path"].to_pylist()
    failures: list[tuple[str, str]] = []
    kept = []
    with (out / "images.npy").open("wb") as file, ThreadPoolExecutor(threads) as pool:
        _header(file, 0)
        for row, result in enumerate(_decoded(pool, root, paths)):
            if isinstance(result, str):
                failures.append((paths[row], result))
                continue
            file.write(result.tobytes())
            kept.append(row)
        file.seek(0)
        _header(file, len(kept))
    rows = table.take(pa.array(kept, pa.int64()))
    rows = rows.add_column(1, "row", pa.array(range(len(kept)), pa.int64()))
    pq.write_table(rows, out / "images.parquet", compression="zstd")
    with (out / UNREADABLE).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *failures])
    missing = sum(reason == MISSING for _, reason in failures)
    return times | {
        "chosen": len(paths),
        "missing": missing,
        "unreadable": len(failures) - missing,
        "written": len(kept),
    }


def _times(engine: Engine, stays: ir.Table, images: ir.Table) -> dict[str, int]:
    theirs = images.semi_join(stays, "subject_id")
    untimed, lost = theirs.time.isnull(), unread(theirs).notnull()
    row = engine.frame(
        theirs.agg(
            every=theirs.count(),
            none=(untimed & ~lost).cast("int64").sum().coalesce(0),
            lost=(untimed & lost).cast("int64").sum().coalesce(0),
        )
    ).iloc[0]
    refuse_unreadable("table of images: times of studies", int(row["lost"]), int(row["every"]))
    return {
        "without a study time": int(row["none"]),
        "with an unreadable study time": int(row["lost"]),
    }


MISSING = "no such file"
SCHEMA = pa.schema(
    {"stay_id": pa.int64(), "hour": pa.float64(), "view": pa.string(), "path": pa.string()}
    | dict.fromkeys(CHEXPERT, pa.float64())
)


def fingerprint(root: Path, out: Path) -> str:
    """Describes the pictures that were chosen, as they are now.

    Args:
        root: The folder of the pictures.
        out: What ``write_images`` wrote.
    """
    written = pq.read_table(out / "images.parquet", columns=["path"])["path"].to_pylist()
    paths = [*written, *(path for path, _ in _failures(out))]
    return manifest.fingerprint_of_many(root, places.below(root, paths))


def arrived(root: Path, out: Path) -> int:
    """Counts pictures that were missing and are there now.

    Args:
        root: The folder of the pictures.
        out: What ``write_images`` wrote.
    """
    missing = [path for path, reason in _failures(out) if reason == MISSING]
    return sum((root / path).is_file() for path in places.below(root, missing))


def _failures(out: Path) -> list[tuple[str, str]]:
    with (out / UNREADABLE).open(newline="") as file:
        return [(path, reason) for path, reason in list(csv.reader(file))[1:]]


def _decoded(
    pool: ThreadPoolExecutor, root: Path, paths: Sequence[str]
) -> Iterator[NDArray[np.uint8] | str]:
    """Pixels in the order of the paths, or why there are none; a bounded number ahead."""
    files = [root / path for path in places.below(root, paths)]
    for start in range(0, len(files), BATCH):
        yield from pool.map(_attempt, files[start : start + BATCH])


def _attempt(path: Path) -> NDArray[np.uint8] | str:
    try:
        return decode(path)
    except FileNotFoundError:
        return MISSING
    # Pillow's decoders fail in many ways on broken files, and none of them may end the run.
    except Exception as error:
        return f"cannot be decoded ({type(error).__name__})"


def _header(file: BinaryIO, rows: int) -> None:
    """The header of the array; numpy leaves room in it for a larger number of rows."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (rows, SIDE, SIDE)}
    )


def _study_time(date: ir.StringValue, time: ir.StringValue) -> ir.TimestampValue:
    readable = date.re_search("^[0-9]{8}$") & time.re_search(r"^[0-9]{1,6}([.][0-9]*)?$")
    clock = time.re_extract("^([0-9]+)", 1).lpad(6, "0")
    text = (
        (date.substr(0, 4) + "-" + date.substr(4, 2) + "-" + date.substr(6, 2))
        + (ibis.literal(" ") + clock.substr(0, 2) + ":" + clock.substr(2, 2))
        + (ibis.literal(":") + clock.substr(4, 2))
    )
    return readable.ifelse(text, ibis.null("string")).try_cast("timestamp")


def _path(subject: ir.StringValue, study: ir.StringValue, dicom: ir.StringValue) -> ir.StringValue:
    group = ibis.literal("files/p") + subject.substr(0, 2)
    return group + "/p" + subject + "/s" + study + "/" + dicom + ".jpg"
