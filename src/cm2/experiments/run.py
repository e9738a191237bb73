"""One experiment in one folder: trained, then tested once, or measured on validation data.

A run's folder holds ``config.yaml`` (every default written out; ``cm2 train`` takes it),
``environment.json`` (versions, counts, the data's checksum, what each encoder is built of),
``reader.cm2`` (scales, columns, variables and vocabularies of the training stays, with which the
run always reads), ``metrics.csv`` (one row an epoch), ``best.ckpt``, ``last.ckpt`` until it is
finished, and at the end ``test.json`` (measures with intervals) and ``test.npz`` (targets and
probabilities in the order of the data, with a number for each patient that is drawn by lot, and
without any identifier). Where the head is another than ``fusion``, ``model.cm2`` stands for reader
and checkpoints (:mod:`.fitted`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.files import replacing
from cm2.core.numerics import seeded
from cm2.experiments import config, fitted, folder, heads, predictions
from cm2.experiments.config import Experiment
from cm2.experiments.folder import data
from cm2.experiments.predictions import Predictions
from cm2.networks import models, training
from cm2.networks.encoders import Encoder
from cm2.networks.encoders.sections import build as build_encoder
from cm2.networks.models import Model
from cm2.networks.tasks import Binary, Multiclass, Multilabel, Task
from cm2.samples import embeddings, targets
from cm2.samples.batches import loader
from cm2.samples.prepared import Prepared
from cm2.samples.stays import Stays

__all__ = [
    "build",
    "data",
    "evaluate",
    "predict",
    "restore",
    "train",
    "write_embeddings",
    "write_predictions",
]

EVALUATIONS = "evaluations"


def train(
    experiment: Experiment, out: Path, *, resume: bool = False, split: str = "test"
) -> dict[str, Any]:
    """Trains a model, keeps its best epoch, and measures it once.

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
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if first:
        folder.check(experiment, out, resume)
    # An unfinished run may have been evaluated, but has a state to go on from.
    if resume and not (out / "last.ckpt").exists():
        if (out / f"{split}.json").exists():
            text = (out / f"{split}.json").read_text(encoding="utf-8")
            found: dict[str, Any] = json.loads(text)
            return found
        if any((out / f"{other}.json").exists() for other in ("test", "validation")):
            return evaluate(out, split=split)
    if experiment.head["kind"] != heads.NETWORK:
        fitted.train(experiment, out)
        return evaluate(out, split=split)
    parts = {"train": data(out, experiment, "train")}
    known = parts["train"].learned
    parts["validation"] = data(out, experiment, "validation", learned=known)
    if any(part.target is None for part in parts.values()):
        raise InputError(f"{experiment.data['root']}: has stays without a label, to learn from")
    learned = parts["train"]
    if not learned.labels and learned.target is not None:
        try:
            targets.check_classes(learned.target.numpy(), "the training stays")
        except ValueError as error:
            raise InputError(f"{experiment.data['root']}: {error}") from None
    model = build(experiment, learned.shape, learned.classes, learned.labels)
    if first:
        facts = {
            "shape": learned.shape,
            "classes": learned.classes,
            "labels": list(learned.labels),
            "checksum": learned.checksum,
            "rows": {split: len(part) for split, part in parts.items()},
        }
        sections = {name: model.encoders[name].section() for name in model.encoders}
        folder.begin(experiment, out, folder.environment(facts, sections), learned)
    training.train(
        model,
        task(learned.classes, learned.labels),
        learned,
        parts["validation"],
        seed=experiment.seed,
        run_dir=out,
        resume=resume,
        **experiment.training,
    )
    if not first:
        return {}
    result = evaluate(out, split=split)
    (out / "last.ckpt").unlink(missing_ok=True)
    return result


def build(
    experiment: Experiment,
    shape: Mapping[str, Mapping[str, Any]],
    classes: int,
    labels: Sequence[str] = (),
    described: Mapping[str, Mapping[str, Any]] | None = None,
) -> Model:
    """Builds the model of an experiment, at the start of its training.

    Args:
        experiment: What names encoders and model.
        shape: For each modality, in order, what the data say of it, such as ``features``.
        classes: Number of classes.
        labels: Names of labels that may hold together, if a sample is not of one class.
        described: What each encoder is built of, in the place of the experiment's sections, which
            may name weights.
    """
    encoders = experiment.encoders if described is None else described
    with seeded(experiment.seed):
        chosen: dict[str, Encoder] = {}
        for name, facts in shape.items():
            part = encoders.get(name)
            if part is None:
                raise InputError(
                    f"the data have a modality {name!r}, but encoders names only "
                    f"{list(encoders)}; leave it out of data.modalities or name one"
                )
            try:
                chosen[name] = build_encoder(part, experiment.dim, facts)
            except (ValueError, ImportError) as error:
                raise InputError(f"encoders.{name}: {error}") from error
        rest = {key: value for key, value in experiment.model.items() if key != "kind"}
        architecture: Any = models.REGISTRY[experiment.model["kind"]]
        network: Model = architecture(chosen, task(classes, labels).labels, **rest)
    return network


def task(classes: int, labels: Sequence[str] = ()) -> Task:
    """The task: binary, one of several classes, or labels that may hold together."""
    if labels:
        return Multilabel(len(labels))
    return Binary() if classes == 2 else Multiclass(classes)


def restore(run: Path) -> tuple[Experiment, Model]:
    """Reads the model of a run with the weights of its best epoch, without running code.

    Raises:
        InputError: If the folder holds no trained model.
    """
    run = Path(run)
    for name in ("config.yaml", "environment.json", "best.ckpt"):
        if not (run / name).is_file():
            raise InputError(f"{run}: no {name}; give the folder of a run of cm2 train")
    experiment = config.load(run / "config.yaml")
    environment = folder.facts(run)
    facts = environment["data"]
    # Runs of earlier versions describe no encoders, and need their weights.
    described = environment.get("encoders")
    model = build(experiment, facts["shape"], facts["classes"], facts.get("labels", ()), described)
    state = torch.load(run / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    return experiment, model.eval()


class Network:
    """A trained run of one network.

    Args:
        run: Its folder.

    Raises:
        InputError: If the folder holds no trained model.
    """

    def __init__(self, run: Path) -> None:
        self.run = Path(run)
        self.experiment, self.model = restore(run)

    def data(
        self, split: str | None, *, root: Path | None = None, labelled: bool = False
    ) -> Prepared:
        """Reads the data of the run, or others; see :func:`.folder.data`."""
        return data(self.run, self.experiment, split, root=root, labelled=labelled)

    def predictions(self, asked: Prepared) -> Predictions:
        """Averages over imputations drawn from the experiment's seed."""
        found = predictions.predict(
            self.model,
            task(asked.classes, asked.labels),
            asked,
            batch_size=self.experiment.training["batch_size"],
            seed=self.experiment.seed,
            accelerator=self.experiment.training["accelerator"],
        )
        return found._replace(patient=predictions.anonymous(asked.stays["subject_id"].to_numpy()))

    def embed(
        self, root: Path, modality: str
    ) -> tuple[Int[ndarray, " stay"], Float[ndarray, "stay dim"]]:
        """Embeds a modality of all stays that have it."""
        if modality not in self.model.encoders:
            known = list(self.model.encoders)
            raise InputError(f"there is no modality {modality!r}; there are {known}")
        # Whatever else they lack, and whatever the experiment removed.
        whole = {"modalities": [modality], "missing_rate": 0.0}
        changed = replace(self.experiment, data=self.experiment.data | whole)
        stays = data(self.run, changed, None, root=root)
        batches = loader(stays, self.experiment.training["batch_size"])
        values = models.embed(self.model.encoders[modality], batches, modality)
        return stays.stays["stay_id"].to_numpy(), values.numpy()


def opened(run: Path) -> Network | fitted.Classifier:
    """A trained run, of whatever head.

    Raises:
        InputError: If the folder holds none.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file() or config.load(path).head["kind"] == heads.NETWORK:
        return Network(run)
    return fitted.Classifier(run)


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
    kept: Any = opened(run)
    experiment = kept.experiment
    if root is None:
        split = split or "test"
        asked = kept.data(split)
        folder.same_data(Path(run), asked.checksum)
        place = Path(run) / split
    else:
        asked = kept.data(split, root=root, labelled=True)
        name = f"{Path(root).resolve().name}-{asked.checksum[:8]}-{split or 'all'}"
        place = Path(run) / EVALUATIONS / name
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


def predict(
    run: Path, root: Path, *, split: str | None = None
) -> tuple[Prepared | Stays, Predictions]:
    """Predicts prepared data with the best epoch of a run.

    Args:
        run: Folder of the run.
        root: The prepared data of the run, or others: they are read with the scales and vocabulary
            of the run's training split, whose folder need not be there any more.
        split: Which split; ``None`` for all rows.

    Raises:
        InputError: If the shapes of the data are not those of the run.
    """
    kept: Any = opened(run)
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
    kept = opened(run)
    stays, values = kept.embed(root, modality)
    made = {"encoder": kept.experiment.encoders.get(modality), "run": kept.experiment.name}
    return embeddings.save(root, modality, stays, values, made)
