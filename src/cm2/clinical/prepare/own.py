"""A user's own modalities as a prepared folder: arrays, tables, texts and images from Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cm2.clinical.prepare import folder, grid, manifest, modalities, notes, splits
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.modalities import Written
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.stays import by_split, check_training, write_stays
from cm2.core.layout import MANIFEST, SPLITS

__all__ = ["sample_frame", "write"]


def write(
    out: str | Path,
    X: Mapping[str, Any],
    *,
    y: Any = None,
    ids: Any = None,
    groups: Any = None,
    split: Any = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes modalities into a prepared folder, as ``cm2 prepare`` does with raw tables.

    What a modality is follows from its values, one entry a sample:

    - a two-dimensional table or array of numbers, such as embeddings: ``tabular``; a row of NaN
      alone is a missing modality;
    - a sequence of texts: ``text``; None, NaN, pandas' NA or an empty text is missing;
    - an array (sample, time, channel) of floats: ``series``, in its units;
      single gaps are filled with the last value, and marked; a sample of NaN alone is missing;
    - an array (sample, height, width) of uint8: ``image``, grey; one of zeros alone is missing.

    Args:
        out: Folder to make.
        X: For each modality its values, all with the same number of samples.
        y: Class codes 0, 1, ..; None where no outcome is known.
        ids: Identifier of each sample, a whole number; None counts them.
        groups: Whom each sample is of, a whole number, such as a patient; nobody is in two parts.
            None: each sample stands for itself.
        split: ``"train"``, ``"validation"`` or ``"test"`` of each sample, or for each part the
            positions of its samples; None deals groups out by a hash, 70, 15 and 15%.
        seed: Of that hash.
        overwrite: Whether another prepared folder is replaced.

    Returns:
        The manifest.

    Raises:
        TableError: Names the modality or argument that cannot be used, and no value of it.

    Example:
        >>> import tempfile
        >>> X = {"table": np.ones((9, 2)), "note": ["seen"] * 8 + [None]}
        >>> split = ["train"] * 5 + ["validation"] * 2 + ["test"] * 2
        >>> with tempfile.TemporaryDirectory() as place:
        ...     made = write(Path(place) / "mine", X, y=[0, 1, 0] * 3, split=split)
        >>> {name: (facts["kind"], facts["stays"]) for name, facts in made["modalities"].items()}
        {'note': ('text', 8), 'table': ('tabular', 9)}
    """
    out = Path(out)
    if not X:
        raise TableError("X has no modality")
    frame = sample_frame(_length(X), y, ids, groups, split, seed)
    order = np.argsort(frame["stay_id"].to_numpy(), kind="stable")
    frame = frame.iloc[order].reset_index(drop=True)
    check_training(frame)
    makers = {name: _maker(name, values) for name, values in X.items()}
    if manifest.read(out) is not None and not overwrite:
        raise TableError(f"{out}: holds prepared data already; replace them with overwrite=True")
    with folder.building(out, owned=MANIFEST) as partial:
        written = {
            name: make(_taken(X[name], order), name, frame, partial)
            for name, make in makers.items()
        }
        write_stays(frame, written, partial, Options(seed=seed))
        positive = frame["label"].fillna(0) > 0
        return manifest.write(
            partial,
            {
                "source": "own",
                "synthetic": False,
                "task": "none" if y is None else "own",
                "classes": None if y is None else max(2, int(frame["label"].max()) + 1),
                "flow": [["stays kept", len(frame)]],
                "positives": {"y": int(positive.sum())} if positive.any() else {},
                "counts": {
                    "stays": by_split(frame),
                    **{name: one.counts for name, one in written.items()},
                },
                "modalities": {
                    name: {**one.facts, "stays": len(one.stays)} for name, one in written.items()
                },
            },
        )


def _length(X: Mapping[str, Any]) -> int:
    lengths = {name: len(values) for name, values in X.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"modalities have different numbers of samples: {lengths}")
    return next(iter(lengths.values()))


def sample_frame(
    number: int,
    y: Any,
    ids: Any,
    groups: Any,
    split: Any,
    seed: int,
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15),
) -> pd.DataFrame:
    """Returns the checked stays of samples; arguments as those of `write`."""
    stay = _whole("ids", np.arange(number) if ids is None else ids, number)
    if len(np.unique(stay)) < number:
        raise TableError(f"ids: {number - len(np.unique(stay))} are there more than once")
    subject = stay if groups is None else _whole("groups", groups, number)
    frame = pd.DataFrame({"stay_id": stay, "subject_id": subject, "hadm_id": stay})
    label = pd.Series([None] * number, dtype="Int64")
    if y is not None:
        label = pd.Series(_whole("y", y, number), dtype="Int64")
        if (label < 0).any():
            raise TableError("y: class codes are 0, 1, .., but some are negative")
    frame["label"], frame["age"] = label, math.nan
    if split is None:
        dealt = splits.assign(np.unique(subject).tolist(), fractions, seed=seed)
        frame["split"] = [dealt[one] for one in subject.tolist()]
    else:
        frame["split"] = _parts(split, number)
    parts = frame.groupby("subject_id")["split"].nunique()
    if (parts > 1).any():
        raise TableError(f"split: {int((parts > 1).sum())} groups are in more than one part")
    return frame


def _whole(what: str, values: Any, number: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (number,):
        raise TableError(f"{what} must be one for each of {number} samples, got {array.shape}")
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == array.round()).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise TableError(f"{what} must be whole numbers, got {array.dtype}")
    return array.astype(np.int64)


def _parts(split: Any, number: int) -> list[str]:
    if isinstance(split, Mapping):
        found = np.full(number, "", dtype=object)
        for part, rows in split.items():
            if (found[np.asarray(rows, dtype=np.int64)] != "").any():
                raise TableError(f"split: {part} has samples that another part has too")
            found[np.asarray(rows, dtype=np.int64)] = part
        split = found.tolist()
    parts = [str(part) for part in split]
    if len(parts) != number or set(parts) - set(SPLITS):
        raise TableError(f"split must say {', '.join(SPLITS)} for each of {number} samples")
    return parts


Maker = Callable[[Any, str, pd.DataFrame, Path], Written]


def _maker(name: str, values: Any) -> Maker:
    """What writes a modality, by what its values are."""
    if not name.isidentifier() or name in ("stays", "manifest"):
        raise TableError(f"{name!r} cannot be the name of a modality: letters, digits and _ only")
    if isinstance(values, pd.DataFrame):
        return _tabular
    array = np.asarray(values, dtype=None if hasattr(values, "dtype") else object)
    if array.ndim == 1 and all(isinstance(one, str) or _is_gap(one) for one in array):
        return _text
    if array.dtype == object:
        array = np.asarray(values)
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return _tabular
    if array.ndim == 3 and array.dtype.kind == "f":
        return _series
    if array.ndim == 3 and array.dtype == np.uint8:
        return _image
    raise TableError(
        f"modality {name!r} is {array.dtype} of shape {array.shape}; there are tables of numbers"
        " (sample, column), texts, float arrays (sample, time, channel) and uint8 arrays"
        " (sample, height, width)"
    )


def _is_gap(one: Any) -> bool:
    """Whether an entry says that there is none: None, NaN or pandas' NA."""
    return pd.api.types.is_scalar(one) and bool(pd.isna(one))


def _taken(values: Any, order: np.ndarray) -> Any:
    if isinstance(values, pd.DataFrame | pd.Series):
        return values.iloc[order]
    if hasattr(values, "dtype"):
        return np.asarray(values)[order]
    return [values[row] for row in order]


def _tabular(values: Any, name: str, stays: pd.DataFrame, out: Path) -> Written:
    frame = values if isinstance(values, pd.DataFrame) else pd.DataFrame(np.asarray(values))
    kinds = zip(frame.columns, frame.dtypes, strict=True)
    if worded := [str(column) for column, kind in kinds if kind.kind not in "biuf"]:
        raise TableError(f"modality {name!r} has columns that are no numbers: {worded[:5]}")
    columns = [str(c) if isinstance(values, pd.DataFrame) else f"{name}_{c}" for c in frame]
    index = pd.Index(stays["stay_id"].to_numpy(), name="stay_id")
    table = pd.DataFrame(frame.to_numpy(np.float64), index=index, columns=columns)
    return modalities.write_tabular(table, name, out)


def _text(values: Any, name: str, stays: pd.DataFrame, out: Path) -> Written:
    texts = [text if isinstance(text, str) and text.strip() else None for text in values]
    kept = [row for row, text in enumerate(texts) if text is not None]
    ids = stays["stay_id"].to_numpy()[kept]
    columns: list[pa.Array] = [
        pa.array(ids),
        pa.array(np.zeros(len(kept), np.int64)),
        pa.nulls(len(kept), pa.float64()),  # nobody says when they are from
        pa.array([name] * len(kept), pa.string()),
        pa.array([texts[row] for row in kept], pa.string()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=notes.schema("category"))
    counts = notes.write(iter([batch]), out / f"{name}.parquet", "category")
    facts = {"kind": "text", "file": f"{name}.parquet", "column": "category"}
    return Written(facts, set(ids.tolist()), counts)


def _series(values: Any, name: str, stays: pd.DataFrame, out: Path) -> Written:
    array = np.asarray(values, dtype=np.float32)
    if np.isinf(array).any():
        raise TableError(f"modality {name!r} has infinite values")
    channels = tuple(f"{name}_{channel}" for channel in range(array.shape[2]))
    written = grid.write_array(
        array,
        stays["stay_id"].to_numpy(np.int64),
        (stays["split"] == "train").to_numpy(bool),
        out / f"{name}.parquet",
        channels,
    )
    return modalities.of_series(written, f"{name}.parquet", 1.0)


def _image(values: Any, name: str, stays: pd.DataFrame, out: Path) -> Written:
    array = np.asarray(values)
    there = array.any(axis=(1, 2))
    ids = stays["stay_id"].to_numpy()[there]
    np.save(out / f"{name}.npy", array[there])
    schema = pa.schema({"stay_id": pa.int64(), "row": pa.int64()})
    batch = pa.RecordBatch.from_arrays(
        [pa.array(ids), pa.array(np.arange(len(ids)))], schema=schema
    )
    modalities.write_table(out / f"{name}_index.parquet", schema, iter([batch]))
    facts = {
        "kind": "image",
        "file": f"{name}.npy",
        "index": f"{name}_index.parquet",
        "shape": list(array.shape[1:]),
    }
    return Written(facts, set(ids.tolist()), {"written": len(ids)})
