"""Running the training: going on after an interruption, gradients over batches, precision."""

import copy
import logging
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2.networks import training
from cm2.networks.learner import Learner
from cm2.networks.models import CM2, Prediction
from cm2.networks.tasks import Binary, Multiclass
from cm2.samples.batches import ArrayDataset
from small_networks import FAST, network, small_data


def run(folder: Path | None, model: dict[str, Any] | None = None, **options: Any) -> torch.Tensor:
    """All weights after training."""
    trained = training.train(
        network(**model or {}),
        Multiclass(3),
        small_data(100),
        small_data(60, seed=1),
        run_dir=folder,
        **FAST | options,
    )
    return torch.cat([value.detach().flatten() for value in trained.parameters()])


FACTOR = {"copula": "factor", "components": 3, "coupling": "shared-components"}
"""Starts from draws, also after the warm-up."""


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, FACTOR], ids=["gumbel", "factor"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, stop: int, options: dict[str, Any]
) -> None:
    """The second part starts in a new process, as far as random states go: they are left alone."""
    whole = run(tmp_path / "a", options, max_epochs=5)
    run(tmp_path / "b", options, max_epochs=stop)
    torch.rand(1)
    resumed = run(tmp_path / "b", options, max_epochs=5, resume=True)
    assert torch.equal(whole, resumed)
    logs = [pd.read_csv(tmp_path / name / "metrics.csv") for name in "ab"]
    pd.testing.assert_frame_equal(*logs)


def test_a_run_that_was_moved_remembers_its_best_epoch(tmp_path: Path) -> None:
    options = {"lr": 0.1, "patience": 30}
    whole = run(tmp_path / "a", max_epochs=8, **options)
    losses = pd.read_csv(tmp_path / "a" / "metrics.csv")["val_loss"]
    assert losses.idxmin() < 5, "the best epoch is before the interruption"
    run(tmp_path / "b", max_epochs=5, **options)
    names = torch.load(tmp_path / "b" / "last.ckpt", weights_only=True)["callbacks"]
    assert sum(name.startswith("ModelCheckpoint{") for name in names) == 2, "as before"
    (tmp_path / "b").rename(tmp_path / "moved")
    assert torch.equal(whole, run(tmp_path / "moved", max_epochs=8, resume=True, **options))
    assert not (tmp_path / "b").exists()


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    """Not after the last epoch, and not after early stopping."""
    for name, options in {
        "all": {"max_epochs": 3},
        "early": {"max_epochs": 30, "patience": 1, "lr": 0.1},
        "at once": {"max_epochs": 30, "patience": 0, "lr": 0.1},
    }.items():
        first = run(tmp_path / name, **options)
        log = (tmp_path / name / "metrics.csv").read_text()
        assert torch.equal(first, run(tmp_path / name, resume=True, **options))
        assert (tmp_path / name / "metrics.csv").read_text() == log
    assert len(pd.read_csv(tmp_path / "early" / "metrics.csv")) < 30


def test_resuming_where_nothing_is_starts(tmp_path: Path) -> None:
    assert torch.equal(run(tmp_path / "a", resume=True), run(None))
    with pytest.raises(ValueError, match="cannot be resumed; give run_dir"):
        run(None, resume=True)


def test_gradients_are_averaged_over_batches() -> None:
    """Two batches of 30 make the step of one of 60 where a loss is a mean over rows."""
    source = small_data(60)
    full = ArrayDataset(source.inputs, torch.ones(60, 3).bool(), source.target)
    found = []
    for size, accumulate in ((60, 1), (30, 2)):
        model = network(hide=0.0, dropout=0.0)
        training.train(
            model, Multiclass(3), full, full, optimizer="adam", clip=1e9,
            **FAST | {"max_epochs": 3, "batch_size": size, "accumulate": accumulate},
        )  # fmt: skip
        found.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
    # Adam divides by the size of the gradient: rounding matters where that is nearly zero.
    assert (found[0] - found[1]).abs().mean() < 1e-4
    assert not torch.equal(found[0], run(None, max_epochs=3, batch_size=60))


def test_half_precision_trains_to_a_similar_loss(tmp_path: Path) -> None:
    losses = []
    for precision in ("32", "bf16"):
        run(tmp_path / precision, precision=precision, max_epochs=6, lr=1e-2, monitor="val_auroc")
        log = pd.read_csv(tmp_path / precision / "metrics.csv")
        assert np.isfinite(log.to_numpy()).all()
        losses.append(log["val_loss"].min())
    # bfloat16 has 8 bits: the losses agree to a few per cent, not more.
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_no_patience_stops_a_resumed_run_no_earlier(tmp_path: Path) -> None:
    options = {"max_epochs": 5, "patience": 0, "lr": 1e-3}
    whole = run(tmp_path / "a", **options)
    assert len(pd.read_csv(tmp_path / "a" / "metrics.csv")) > 2, "better than before each time"
    run(tmp_path / "b", **options | {"max_epochs": 2})
    assert torch.equal(whole, run(tmp_path / "b", resume=True, **options))


def test_probabilities_have_single_precision_under_autocast() -> None:
    model, batch = network(), small_data(20)[slice(None)]
    with torch.autocast("cpu", torch.bfloat16):
        found = model.predict(batch)
    assert found.mean.dtype == found.spread.dtype == torch.float32
    assert found.mean.sum(dim=1).sub(1).abs().max() < 1e-6


def test_a_loss_out_of_range_names_term_and_rows() -> None:
    source = small_data(64)
    model = network(hide=0.0)
    with torch.no_grad():
        model.classifier[-1].bias.fill_(1e12)
        model.classifier[-1].bias[0] = -1e12
    with pytest.raises(FloatingPointError) as caught:
        training.train(model, Multiclass(3), source, source, **FAST | {"batch_size": 8})
    message = str(caught.value)
    assert "out of range" in message
    assert "term task" in message
    rows = message.split("rows [")[1].split("]")[0]
    assert len(rows.split(",")) == 8


def test_embeddings_that_break_name_modality_and_rows() -> None:
    model = network(hide=0.0)
    name = next(iter(model.encoders))
    with torch.no_grad():
        for value in model.encoders[name].parameters():
            value.fill_(torch.nan)
    learner = Learner(model, Multiclass(3))
    with pytest.raises(FloatingPointError, match=rf"embedding of modality '{name}'; rows \[0, 1\]"):
        learner.training_step(small_data(64)[:2], 0)


def test_the_last_good_state_stays_when_a_loss_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.terms

    def broken(self: Learner, batch: Any) -> dict[str, torch.Tensor]:
        terms = original(self, batch)
        return {**terms, "task": terms["task"] * (torch.nan if self.current_epoch == 2 else 1.0)}

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "terms", broken)
        with pytest.raises(FloatingPointError, match=r"epoch 2.*term task"):
            run(tmp_path, max_epochs=5)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1
    assert torch.equal(run(tmp_path, max_epochs=5, resume=True), run(None, max_epochs=5))


def settings() -> list[Any]:
    """What belongs to the process, not to a thread."""
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    return [dict(os.environ), list(warnings.filters), levels, signal.getsignal(signal.SIGINT)]


def test_fits_in_two_threads_are_those_alone_and_leave_nothing_changed() -> None:
    models = [network() for _ in range(2)]
    copies = copy.deepcopy(models)

    def fit(seed: int, model: CM2) -> torch.Tensor:
        few = FAST | {"max_epochs": 2, "seed": seed}
        training.train(model, Multiclass(3), small_data(100), small_data(60, seed=1), **few)
        return torch.cat([value.detach().flatten() for value in model.parameters()])

    before = settings()
    alone = [fit(seed, model) for seed, model in enumerate(models)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, range(2), copies))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert settings() == before


def test_an_interrupt_goes_through_and_is_not_ignored_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "on_validation_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, max_epochs=3)
    assert settings() == before


def test_each_epoch_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, logger="cm2"):
        run(tmp_path, max_epochs=2)
        run(tmp_path, max_epochs=3, resume=True)
    log = pd.read_csv(tmp_path / "metrics.csv")
    assert len(caplog.messages) == len(log) == 3
    assert caplog.messages[0].startswith("epoch 1 of 2: training loss ")
    last = caplog.messages[-1]
    assert f"epoch 3 of 3: training loss {log['train_loss'].iloc[-1]:.4f}" in last
    best = f"best {log['val_loss'].min():.4f} in epoch {int(log['val_loss'].argmin()) + 1}"
    assert f"validation loss {log['val_loss'].iloc[-1]:.4f}, {best}; at most 0 s left" in last


def scripted(scores: list[torch.Tensor], monitor: str) -> dict[str, Any]:
    """A network's state after a training whose validation predictions are given, epoch by epoch."""
    model, calls = network(labels=1), iter(scores)
    source, validation = small_data(40), small_data(4, seed=1)
    data = [
        ArrayDataset(part.inputs, part.present, (torch.arange(len(part)) % 2).float())
        for part in (source, validation)
    ]
    model.predict = lambda *_: Prediction(next(calls)[:, None], torch.zeros(4, 1))  # type: ignore[method-assign]
    options = FAST | {"max_epochs": len(scores), "monitor": monitor}
    training.train(model, Binary(), *data, **options)
    return model.state_dict()


def test_the_epoch_is_chosen_by_what_is_monitored() -> None:
    """The first epoch ranks all pairs and its probabilities are far off; the second one errs."""
    ranked, near = torch.tensor([0.01, 0.04, 0.02, 0.03]), torch.tensor([0.3, 0.7, 0.6, 0.55])
    first = scripted([ranked], "val_loss")
    both = {monitor: scripted([ranked, near], monitor) for monitor in ("val_loss", "val_auroc")}
    weight = "classifier.2.weight"
    assert torch.equal(both["val_auroc"][weight], first[weight])
    assert not torch.equal(both["val_loss"][weight], first[weight])


def test_early_stopping_waits_for_a_better_auroc(tmp_path: Path) -> None:
    """The validation loss falls in every epoch, the AUROC never rises."""
    run(tmp_path, monitor="val_auroc", patience=2, max_epochs=20, lr=1e-9)
    log = pd.read_csv(tmp_path / "metrics.csv")
    assert len(log) < 20
    assert log["val_auroc"].between(0, 1).all()
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert training.finished(state, 20, 2)


def test_validation_of_one_outcome_cannot_be_ranked() -> None:
    source = small_data(20)
    one = ArrayDataset(source.inputs, source.present, torch.zeros(20, dtype=torch.long))
    with pytest.raises(ValueError, match="monitor='val_auroc' needs both outcomes"):
        training.train(network(), Multiclass(3), source, one, monitor="val_auroc", **FAST)
