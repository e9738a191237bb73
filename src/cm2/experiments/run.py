"""One experiment in one folder: trained, then tested once, or measured on validation data.

A run's folder holds ``config.yaml`` (every default written out; ``cm2 train`` takes it),
``environment.json`` (versions, counts, the data's checksum), ``model.cm2`` (what reads the data and
what predicts: all that a finished run is read from), ``test.json`` (measures with intervals) and
``test.npz`` (targets and probabilities in the order of the data, with a number for each patient
that is drawn by lot, and without any identifier). The training of one network also leaves
``metrics.csv`` (one row an epoch); until it is finished, the folder has ``begun.cm2``,
``best.ckpt`` and ``last.ckpt`` in the place of ``model.cm2``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cm2.core.errors import InputError
from cm2.core.files import replacing
from cm2.estimators.classifier import CM2Classifier
from cm2.estimators.heads import encoding
from cm2.estimators.heads.fusion import Course, Fusion
from cm2.experiments import folder, heads, predictions, trained
from cm2.experiments.config import Experiment
from cm2.experiments.predictions import Predictions
from cm2.experiments.trained import Trained
from cm2.samples import embeddings, targets
from cm2.samples.container import Samples
from cm2.samples.inputs import Reader
from cm2.samples.stays import Stays

__all__ = ["evaluate", "predict", "train", "write_embeddings", "write_predictions"]

LEARNED = ("train", "validation")
"""Splits that training sees: the first is learned from, the second stops networks."""


def train(
    experiment: Experiment, out: Path, *, resume: bool = False, split: str = "test"
) -> dict[str, Any]:
    """Trains a model, and measures it once.

    Args:
        experiment: What to run.
        out: Folder of the run.
        resume: Whether to go on where an interrupted run of the same experiment stopped. A
            finished run is left as it is, but measured if it was not on this split.
        split: ``"test"``, or ``"validation"`` for a run that may be selected and tested later.

    Returns:
        What ``test.json`` or ``validation.json`` holds.

    Raises:
        InputError: If the folder holds something else, or the data do not fit.
        FloatingPointError: If a loss is not finite or out of range.
    """
    out = Path(out)
    # Where several processes train side by side, each comes here, and the first one writes.
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if first:
        folder.check(experiment, out, resume)
    # An unfinished run may have been evaluated, but has a state to go on from.
    if resume and not (out / folder.LAST).exists():
        known = {one: out / f"{one}.json" for one in ("test", "validation")}
        if known[split].exists():
            found: dict[str, Any] = json.loads(known[split].read_text(encoding="utf-8"))
            return found
        if (out / folder.MODEL).exists() or any(path.exists() for path in known.values()):
            return evaluate(out, split=split)
    model = _fitted(experiment, out, resume=resume, first=first)
    if not first:
        return {}
    folder.finish(model, out)
    return evaluate(out, split=split)


def _fitted(experiment: Experiment, out: Path, *, resume: bool, first: bool) -> CM2Classifier:
    """The model of an experiment, fitted to the training stays."""
    known = learned(experiment)
    stays = known.stays
    rows = stays.stays["split"].value_counts()
    facts = {
        "shape": {name: {"kind": kind} for name, kind in stays.samples.kinds.items()},
        "classes": stays.classes,
        "labels": list(stays.labels),
        "checksum": stays.checksum,
        "hours": stays.hours,
        "rows": {split: int(rows.get(split, 0)) for split in LEARNED},
    }
    model = heads.classifier(experiment, stays.modalities)

    def begin() -> None:
        if first:
            folder.begin(experiment, out, facts)
            model.save(out / folder.BEGUN)

    if isinstance(model.head, Fusion):
        model.head.course = Course(out, resume, begin)
    before = trained.load(out / folder.BEGUN) if (out / folder.BEGUN).is_file() else None
    fit(model, experiment, known, before.reader_ if before else None)
    if not isinstance(model.head, Fusion):
        folder.begin(experiment, out, facts)
    return model


class Learned(NamedTuple):
    """What a training sees.

    Attributes:
        stays: Of both splits.
        samples: Those that are learned from.
        stop: Those that stop the training of networks, and from which nothing else is learned.
    """

    stays: Stays
    samples: Samples
    stop: Samples | None


def learned(experiment: Experiment) -> Learned:
    """Opens what an experiment learns from.

    Raises:
        InputError: If that is not enough.
    """
    data = trained.stays(experiment, LEARNED)
    root = experiment.data["root"]
    if data.target is None:
        raise InputError(f"{root}: has stays without a label, to learn from")
    watched = (data.stays["split"] == "validation").to_numpy()
    if experiment.head["kind"] == heads.NETWORK and not watched.any():
        raise InputError(f"{root}: no stay of validation, which is to stop the training")
    stop = data.samples[watched] if watched.any() else None
    return Learned(data, data.samples[~watched], stop)


def fit(
    model: CM2Classifier, experiment: Experiment, known: Learned, reader: Reader | None = None
) -> None:
    """Fits the classifier of an experiment.

    Args:
        model: The classifier.
        experiment: Its experiment.
        known: What it learns from.
        reader: What reads the data, if it has been fitted before.

    Raises:
        InputError: If the data do not fit.
    """
    home = experiment.data.get("fitted_on")
    try:
        if not known.stays.labels:
            targets.check_classes(np.asarray(known.samples.y), "the training stays")
        if reader is None and home is not None and Path(home) != Path(experiment.data["root"]):
            other = trained.stays(experiment, "train", root=home).samples
            reader = Reader(options=encoding.reading(model.encoders or {}, model.reading))
            reader.fit_blocks(other, patients=other.groups)
        model.fit(known.samples, validation=known.stop, reader=reader)
    except InputError:
        raise
    except ValueError as error:  # of the data: the arguments have been checked
        raise InputError(f"{experiment.data['root']}: {error}") from error


def evaluate(
    run: Path, *, root: Path | None = None, split: str | None = None, replicates: int = 1000
) -> dict[str, Any]:
    """Predicts with the best epoch and measures; writes what it finds as JSON and ``.npz``.

    The files are ``<split>`` in the run's folder, and those of other data in its ``evaluations``,
    by the name of their folder, the beginning of their checksum, and the split.

    Args:
        run: Folder of the run.
        root: Other prepared data; None for those of the run.
        split: ``"test"``, ``"validation"`` or ``"train"``; None for the test split of the run's
            data, or for all stays of others whose outcome is known.
        replicates: Bootstrap samples behind the intervals.

    Raises:
        InputError: If no outcome is known, or the shapes of the data are not those of the run.
    """
    kept = Trained(run)
    experiment = kept.experiment
    if root is None:
        split = split or "test"
        asked = kept.data(split)
        folder.same_data(Path(run), asked.checksum)
        place = Path(run) / split
    else:
        asked = kept.data(split, root=root, labelled=True)
        name = f"{Path(root).resolve().name}-{asked.checksum[:8]}-{split or 'all'}"
        place = Path(run) / folder.EVALUATIONS / name
        place.parent.mkdir(exist_ok=True)
    where = root or experiment.data["root"]
    if asked.target is None:
        raise InputError(f"{where}: has stays without a label, to measure against")
    if len(asked) == 0:
        raise InputError(f"{where}: has no stay with a label, to measure against")
    found = kept.predictions(asked)
    result = {
        "name": experiment.name,
        "split": split or "all",
        **found.summary(asked.modalities, asked.labels, replicates=replicates),
    }
    found.save(place.with_name(f"{place.name}.npz"))
    folder.write(place.with_name(f"{place.name}.json"), result)
    return result


def predict(run: Path, root: Path, *, split: str | None = None) -> tuple[Stays, Predictions]:
    """Predicts prepared data with the best epoch of a run.

    Args:
        run: Folder of the run.
        root: The prepared data of the run, or others: they are read with the scales and vocabulary
            of the run's training split, whose folder need not be there any more.
        split: Which split; ``None`` for all rows.

    Raises:
        InputError: If the shapes of the data are not those of the run.
    """
    kept = Trained(run)
    asked = kept.data(split, root=root)
    return asked, kept.predictions(asked)


def write_predictions(run: Path, root: Path, out: Path, *, split: str | None = None) -> None:
    """Writes what ``predict`` finds as Parquet: stay_id, then a column a class and its spread.

    Of several labels the columns are called by their names, such as ``probability_shock``.
    """
    asked, found = predict(run, root, split=split)
    frame = pd.DataFrame({"stay_id": asked.stays["stay_id"]})
    for column, name in enumerate(asked.labels or range(asked.classes)):
        frame[f"probability_{name}"] = found.probability[:, column]
        frame[f"spread_{name}"] = found.spread[:, column]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        frame.to_parquet(part, index=False)


def write_meds(run: Path, root: Path, out: Path, *, split: str | None = None) -> None:
    """Writes what ``predict`` finds as Parquet in the schema of ``meds-evaluation``."""
    import pyarrow.parquet as pq

    asked, found = predict(run, root, split=split)
    table = predictions.meds(asked.stays, found)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        pq.write_table(table, part)


def write_embeddings(run: Path, root: Path, modality: str) -> Path:
    """Keeps a modality's embeddings by a run's encoder beside prepared data.

    A later experiment names the modality in ``data.embedded`` and gives it an encoder of the kind
    ``precomputed`` or ``dense``.
    """
    kept = Trained(run)
    stays, values = kept.embed(root, modality)
    made = {"encoder": kept.experiment.encoders.get(modality), "run": kept.experiment.name}
    return embeddings.save(root, modality, stays, values, made)
