"""Training: what is restored, logged, left alone, and said when a loss is not finite."""

import inspect
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2.networks import learner, training
from cm2.networks.models import CM2
from cm2.networks.tasks import Binary, Multiclass, Multilabel
from cm2.samples.batches import ArrayDataset
from small_networks import FAST, Identity, correlated, network, small_data


def loss(model: CM2, validation: ArrayDataset) -> float:
    """Validation loss as the learner computes it."""
    task = Multiclass(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = validation[slice(None)]
        mean = model.predict(batch, 3, probability=task.probability).mean
    return float(task.loss(task.logits(mean), batch.target).mean())


def test_training_learns() -> None:
    model, validation = network(), small_data(seed=1)
    before = loss(model, validation)
    training.train(
        model, Multiclass(3), small_data(), validation, lr=1e-2, **FAST | {"max_epochs": 12}
    )
    assert loss(model, validation) < 0.8 * before
    assert not model.training


def test_a_trained_model_knows_what_its_logits_stand_for(tmp_path: Path) -> None:
    """Three labels that may hold together sum to anything; a softmax would make it one."""
    rows = small_data()
    rows.target = torch.randint(2, (len(rows), 3)).float()
    model = network()
    training.train(model, Multilabel(3), rows, rows, **FAST | {"max_epochs": 1})
    restored = network()
    restored.load_state_dict(model.state_dict())
    for each in (model, restored):
        torch.manual_seed(0)
        found = each.predict(rows[:8], 2).mean
        torch.manual_seed(0)
        expected = each.predict(rows[:8], 2, probability=torch.sigmoid).mean
        assert torch.equal(found, expected)
    assert torch.equal(network().predict(rows[:1]).mean.sum(), torch.ones(()))


def test_the_best_epoch_is_restored_and_the_log_is_complete(tmp_path: Path) -> None:
    model, validation = network(), small_data(seed=1)
    training.train(
        model, Multiclass(3), small_data(60), validation,
        lr=5e-2, run_dir=tmp_path, patience=3, **FAST | {"max_epochs": 25},
    )  # fmt: skip
    log = pd.read_csv(tmp_path / "metrics.csv")
    assert log["epoch"].tolist() == list(range(len(log)))
    best = int(log["val_loss"].idxmin())
    assert len(log) == best + 4, "stops three epochs after the best"
    assert loss(model, validation) == pytest.approx(log["val_loss"][best], rel=1e-4)
    assert loss(model, validation) < log["val_loss"].iloc[-1]
    wanted = {
        "train_loss", "train_task", "train_joint_nll", "train_alignment", "train_auxiliary",
        "val_loss", "kendall_tau", "log_copula_density", "ks", "ks_max", "correlation",
    }  # fmt: skip
    assert wanted <= set(log.columns)
    assert np.isfinite(log[sorted(wanted)].to_numpy()).all()
    assert log["ks"].between(0, 1).all()
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    restored = learner.Learner(network(), Multiclass(3))
    restored.load_state_dict(state)


@pytest.mark.parametrize(("copula", "column"), [("gumbel", "alpha"), ("frank", "theta")])
def test_the_copula_parameter_is_logged(tmp_path: Path, copula: str, column: str) -> None:
    training.train(
        network(copula=copula), Multiclass(3), small_data(64), small_data(64), run_dir=tmp_path,
        **FAST | {"max_epochs": 1},
    )  # fmt: skip
    assert np.isfinite(pd.read_csv(tmp_path / "metrics.csv")[column]).all()


def test_same_seed_same_weights_and_another_seed_others() -> None:
    found = []
    for seed in (0, 0, 1):
        model = training.train(
            network(), Multiclass(3), small_data(), small_data(seed=1), seed=seed, **FAST
        )
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_training_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Random states, environment, files and output are as they were.

    Python's own random state is drawn from by beartype, which checks calls in tests.
    """
    monkeypatch.chdir(tmp_path)
    model = network()
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    environment = dict(os.environ)
    training.train(model, Multiclass(3), small_data(64), small_data(64), **FAST)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_run_folder_gets_log_and_checkpoint_only(tmp_path: Path) -> None:
    training.train(
        network(), Multiclass(3), small_data(64), small_data(64), run_dir=tmp_path / "a", **FAST
    )
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "metrics.csv"}


@pytest.mark.parametrize("part", ["encoder", "marginal", "copula"])
def test_a_loss_that_is_not_finite_names_its_term(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    terms = model.joint().log_prob_terms
    column = 1
    if part == "encoder":
        with torch.no_grad():
            model.encoders["notes"].linear.bias.fill_(torch.nan)
        message = "not finite.*the embedding of modality 'notes'"
    elif part == "marginal":
        message = "not finite.*the marginal of modality 'notes'"
    else:
        message = "not finite.*the copula"
    Joint = type(model.joint())

    def broken(self: object, z: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
        found = dict(ORIGINAL(self, z, present))
        if part == "marginal":
            found["marginal"] = found["marginal"].clone()
            found["marginal"][:, column] *= torch.nan
        elif part == "copula":
            found["copula"] = found["copula"] * torch.nan
        return found

    ORIGINAL = Joint.log_prob_terms
    monkeypatch.setattr(Joint, "log_prob_terms", broken)
    monkeypatch.setattr(
        Joint,
        "log_prob",
        lambda self, z, present: sum(
            t.sum(-1) if t.ndim > 1 else t for t in self.log_prob_terms(z, present).values()
        ),
    )
    with pytest.raises(FloatingPointError, match=message):
        training.train(model, Multiclass(3), small_data(64), small_data(64), **FAST)
    assert terms is not None


@pytest.mark.parametrize("posterior", ["point", "gaussian"])
def test_trap_scale_of_a_rare_modality_does_not_run_away(posterior: str) -> None:
    """One modality absent in three quarters of the rows, frozen encoders, the whole training."""
    z, present = correlated(2400, 3, [0.6], rate=0.75)
    y = (z[:, 0, 0] > 0).long()
    values = {"a": z[:, 0].numpy(), "b": z[:, 1].numpy()}
    both = ArrayDataset(values, present, y)
    model = CM2(
        {"a": Identity(3), "b": Identity(3)}, 2, components=1, width=8, hide=0.3,
        posterior=posterior,
    )  # fmt: skip
    training.train(
        model, Multiclass(2), both, both.take(range(500)),
        lr=5e-3, patience=40, **FAST | {"max_epochs": 25, "batch_size": 256},
    )  # fmt: skip
    with torch.no_grad():
        scale = model.joint().marginals.scale[1] / model.embed(both[slice(None)])[
            both.present[:, 1], 1
        ].std(0)
        tau = model.joint().kendall_tau()[:, 0, 1]
    assert (scale - 1).abs().max() < 0.25
    if posterior == "point":  # the Gaussian posterior's own linear map is not frozen
        assert (tau - 0.6).abs().max() < 0.1


def test_binary_and_multilabel_tasks_and_weights() -> None:
    source = small_data(64)
    y = np.asarray(source.target)
    for task, target in (
        (Binary(), y > 0),
        (Multilabel(2), np.stack([y > 0, y > 1], 1)),
    ):
        weighted = ArrayDataset(source.inputs, source.present, target, np.arange(64.0))
        model = network(labels=task.labels)
        training.train(model, task, weighted, weighted, optimizer="adam", **FAST)
        assert (
            model.predict(weighted[slice(None)], probability=task.probability).mean.isfinite().all()
        )


def test_rows_of_weight_zero_do_not_count() -> None:
    source, junk = small_data(64), small_data(64, seed=9)
    parts = [torch.cat([source.inputs[n], 50 * junk.inputs[n]]) for n in source.inputs]
    both = ArrayDataset(
        dict(zip(source.inputs, parts, strict=True)),
        torch.cat([source.present, junk.present]),
        torch.cat([source.target, junk.target]),
        torch.cat([torch.ones(64), torch.zeros(64)]),
    )
    module = learner.Learner(network(hide=0.0).eval(), Multiclass(3))
    complete = {"present": torch.ones(128, 3).bool()}
    left = module.terms(both[slice(None)]._replace(**complete))
    batch = source[slice(None)]
    right = module.terms(batch._replace(present=torch.ones(64, 3).bool()))
    for name in left:
        torch.testing.assert_close(left[name], right[name])


def test_trap_training_knows_no_test_data() -> None:
    """No hook or step of Lightning's test loop, and no test set among the arguments."""
    assert not [name for name in vars(learner.Learner) if "test" in name or "predict" in name]
    arguments = inspect.signature(training.train).parameters
    sets = [name for name, value in arguments.items() if "Rows" in str(value.annotation)]
    assert sets == ["training", "validation"]
    assert not [name for name in arguments if "test" in name]


@pytest.mark.parametrize("epoch", [0, 2, 100])
def test_the_temperature_is_that_of_the_paper_up_to_a_factor(
    epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper divides the task's loss by what the likelihood is multiplied with here."""
    monkeypatch.setattr(learner.Learner, "current_epoch", epoch)
    options = {"objective": "likelihood", "imputation": "zero", "auxiliary": False, "hide": 0.0}
    factor = max(math.exp(-0.5 * epoch), 0.001)
    found = []
    for divided in (False, True):
        model, batch = network(**options), small_data(20)
        weights = {"likelihood": 0.1}
        one = learner.Learner(model, Multiclass(3), weights=weights, temperature=0.5)
        if divided:
            terms = one.terms(batch[slice(None)])
            loss = factor * (terms["task"] / factor + 0.1 * terms["likelihood"])
        else:
            loss = one.training_step(batch[slice(None)], 0)
        loss.backward()
        parts = [value.grad for value in model.parameters() if value.grad is not None]
        found.append(torch.cat([part.flatten() for part in parts]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)  # sums in another order


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="temperature is a rate, not negative, but is -1"):
        learner.Learner(network(), Multiclass(3), temperature=-1.0)
    source = small_data(10)
    bare = ArrayDataset(source.inputs, source.present)
    with pytest.raises(ValueError, match="the training data need samples and a target"):
        training.train(network(), Multiclass(3), bare, source)
    with pytest.raises(ValueError, match=r"no terms \['alinment'\]"):
        learner.Learner(network(), Multiclass(3), weights={"alinment": 1.0})
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'"):
        learner.Learner(network(), Multiclass(3), optimizer="sgd")
