"""Heads on embeddings: how many networks they take, and how few rows they accept."""

from typing import Any, Self

import numpy as np
import pytest

from cm2 import CM2Classifier
from cm2.estimators.heads import Experts, Fusion
from cm2.estimators.heads.base import FLOOR

TINY = {"xray": {"kind": "image", "depths": [1], "widths": [2]}}


def data(rows: int) -> tuple[dict[str, Any], np.ndarray]:
    """A table that tells the class, and a picture that all rows but some have."""
    y = np.arange(rows) % 2
    table = np.random.default_rng(0).normal(size=(rows, 2)) + y[:, None]
    grey = np.arange(rows, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    return {"labs": table, "xray": [None if k % 5 == 4 else one for k, one in enumerate(grey)]}, y


def model(head: str, networks: int, **options: Any) -> CM2Classifier:
    small = {"embedding_dim": 2, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    return CM2Classifier(head=head, n_networks=networks, **small | {"encoders": TINY} | options)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each network; none is trained, what starts at random is as good here."""
    seen: list[int] = []

    def untrained(self: Fusion, *data: Any) -> Any:
        seen.append(len(data[4]))
        return self.start(data[5]).eval()

    monkeypatch.setattr(Fusion, "_train", untrained)
    return seen


@pytest.mark.parametrize(
    ("head", "asked", "networks"), [("pooled", 1, 2), ("pooled", 3, 3), ("joint", 1, 2)]
)
def test_the_members_of_a_pool_share_the_networks(
    head: str, asked: int, networks: int, trained: list[int], small_models: None
) -> None:
    X, y = data(24)
    fitted = model(head, asked).fit(X, y)
    assert trained == [24 - 24 // networks] * networks
    assert fitted.predict_proba(X).shape == (24, 2)


def test_a_head_alone_is_fitted_once_a_network(
    trained: list[int], small_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, fit = [], Experts.fit

    def counted(self: Experts, blocks: Any, *rest: Any) -> Self:
        fits.append(len(blocks.present))
        return fit(self, blocks, *rest)

    monkeypatch.setattr(Experts, "fit", counted)
    X, y = data(24)
    model("experts", 3).fit(X, y)
    assert fits == [8] * 3


@pytest.mark.parametrize(
    ("head", "presence", "patients"),
    [
        ("pooled", False, 6),
        ("joint", False, 4),
        ("experts", False, 4),
        ("experts", True, 6),
    ],
)
def test_few_patients_work_or_are_refused_before_any_training(
    head: str, presence: bool, patients: int, trained: list[int], small_models: None
) -> None:
    """Every patient has rows of both classes, so that two networks can have equally many."""
    X, y = data(6 * patients)
    groups = np.arange(len(y)) // 6
    fitted = model(head, 2, presence=presence).fit(X, y, groups=groups)
    assert (fitted.predict_log_proba(X) > FLOOR).all()
    trained.clear()
    fewer = slice(6 * (patients - 1))
    X = {name: values[fewer] for name, values in X.items()}
    with pytest.raises(ValueError, match=f"at least {patients} patients, 2 with each of 2 classes"):
        model(head, 2, presence=presence).fit(X, y[fewer], groups=groups[fewer])
    assert not trained


@pytest.mark.parametrize(("head", "labels"), [("pooled", 1), ("joint", 2), ("experts", 1)])
def test_a_rare_class_works_or_is_refused_before_any_training(
    head: str, labels: int, trained: list[int], small_models: None
) -> None:
    X, y = data(24)
    rare = (np.arange(24) < 3).astype(int)
    target = rare if labels == 1 else np.stack([y, rare], axis=1)
    model(head, 3).fit(X, target).predict_proba(X)
    trained.clear()
    with pytest.raises(ValueError, match=r"at least 8 samples, 4 with each of 2 classes, or fewer"):
        model(head, 4).fit(X, target)
    assert not trained


@pytest.mark.parametrize(
    ("head", "asked", "presence", "labels"),
    [
        ("fusion", 3, False, 4),
        ("fusion", 11, False, 1),
        ("fusion", 1, True, 1),
        ("pooled", 1, False, 1),
        ("joint", 2, True, 1),
    ],
)
@pytest.mark.parametrize("pictures", [True, False])
def test_the_log_says_beforehand_how_many_networks_are_trained(
    head: str,
    asked: int,
    presence: bool,
    labels: int,
    pictures: bool,
    trained: list[int],
    small_models: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    X, y = data(24)
    options = {} if pictures else {"encoders": None}
    X = X if pictures else {"labs": X["labs"]}
    target = y if labels == 1 else np.stack([y] * labels, axis=1)
    with caplog.at_level("INFO", logger="cm2"):
        model(head, asked, presence=presence, **options).fit(X, target)
    (said,) = [one for one in caplog.records if one.name == "cm2.estimators.assembly"]
    counts = f"{labels} labels, 2 classes, {len(trained)} networks of at most 1 epochs"
    assert f"head='{head}', 24 samples of {len(X)} modalities: {counts}" in said.getMessage()
    assert said.levelname == ("WARNING" if len(trained) > 10 else "INFO")


def test_many_classes_of_experts_are_a_warning(
    small_models: None, caplog: pytest.LogCaptureFixture
) -> None:
    X, _ = data(24)
    model("experts", 1, encoders=None).fit({"labs": X["labs"]}, np.arange(24) % 12)
    assert "this takes long: experts of 12 classes" in caplog.text
