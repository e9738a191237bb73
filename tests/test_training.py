"""Running the training: going on after an interruption, gradients over batches, precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2 import training
from cm2.data.batches import ArrayDataset
from cm2.tasks import Multiclass
from networks import network
from test_learner import FAST, data


def run(folder: Path | None, **options: Any) -> torch.Tensor:
    """All weights after training."""
    model = training.train(
        network(), Multiclass(3), data(100), data(60, seed=1), run_dir=folder, **FAST | options
    )
    return torch.cat([value.detach().flatten() for value in model.parameters()])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    """The second part starts in a new process, as far as random states go: they are left alone."""
    whole = run(tmp_path / "a", max_epochs=5)
    run(tmp_path / "b", max_epochs=stop)
    torch.rand(1)
    resumed = run(tmp_path / "b", max_epochs=5, resume=True)
    assert torch.equal(whole, resumed)
    logs = [pd.read_csv(tmp_path / name / "metrics.csv") for name in "ab"]
    pd.testing.assert_frame_equal(*logs)


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    """Not after the last epoch, and not after early stopping."""
    for name, options in {
        "all": {"max_epochs": 3},
        "early": {"max_epochs": 30, "patience": 1, "lr": 0.1},
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
    source = data(60)
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
        run(tmp_path / precision, precision=precision, max_epochs=6, lr=1e-2)
        log = pd.read_csv(tmp_path / precision / "metrics.csv")
        assert np.isfinite(log.to_numpy()).all()
        losses.append(log["val_loss"].min())
    # bfloat16 has 8 bits: the losses agree to a few per cent, not more.
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_a_loss_out_of_range_names_term_and_rows() -> None:
    source = data(64)
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
    from cm2.learner import Learner

    model = network(hide=0.0)
    name = next(iter(model.encoders))
    with torch.no_grad():
        for value in model.encoders[name].parameters():
            value.fill_(torch.nan)
    learner = Learner(model, Multiclass(3))
    with pytest.raises(FloatingPointError, match=rf"embedding of modality '{name}'; rows \[0, 1\]"):
        learner.training_step(data(64)[:2], 0)


def test_the_last_good_state_stays_when_a_loss_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.learner import Learner

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
