"""Heads on what frozen encoders make of texts and images."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cm2 import CM2Classifier
from cm2.core.records import Padded
from cm2.estimators.heads import Embedded, Frozen, Fusion
from cm2.estimators.heads.frozen import pooled
from cm2.networks.encoders import Encoder, Image, Text
from cm2.samples.inputs import Reader
from small_models import shrink

ROWS = 80
RNG = np.random.default_rng(1)
Y = RNG.integers(2, size=ROWS)
GREY = (RNG.integers(0, 150, (ROWS, 16, 16)) + 100 * Y[:, None, None]).astype(np.uint8)
X: dict[str, Any] = {
    "labs": RNG.normal(size=(ROWS, 2)),
    "xray": [None if row % 5 == 4 else one for row, one in enumerate(GREY)],
    "notes": [None if row % 7 == 3 else ("fever", "no fever")[y] for row, y in enumerate(Y)],
}
XRAY = {"kind": "image", "depths": [1], "widths": [4], "frozen": True}
NOTES = {"kind": "text", "width": 8, "layers": 1, "heads": 2, "tokens": 8, "frozen": True}
HEADS = ("linear", "boosting", "joint", "experts")


def model(head: str, **options: Any) -> CM2Classifier:
    small = {"embedding_dim": 2, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    return CM2Classifier(
        head=head, **small | {"encoders": {"xray": XRAY, "notes": NOTES}} | options
    )


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any training of a network fails."""
    shrink(monkeypatch)

    def fail(*_: Any) -> None:
        pytest.fail("a network is trained")

    monkeypatch.setattr(Fusion, "_train", fail)


@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_without_a_network(head: str, untrained: None) -> None:
    fitted = model(head).fit(X, Y)
    proba = fitted.predict_proba(X)
    assert roc_auc_score(Y, proba[:, 1]) > 0.9
    alone = {name: values[2:3] for name, values in X.items()}
    np.testing.assert_allclose(fitted.predict_proba(alone), proba[2:3], atol=1e-5)


@pytest.mark.parametrize("head", ["joint", "experts"])
def test_trap_texts_may_come_before_tables(head: str, untrained: None) -> None:
    """Numbers that were added at the end were read with the presence of other modalities."""
    given = [X, {name: X[name] for name in ("notes", "xray", "labs")}]
    fitted = [model(head).fit(one, Y) for one in given]
    first, second = (one._blocks(one_X, None) for one, one_X in zip(fitted, given, strict=True))
    assert list(second.values) == second.names == ["notes", "xray", "labs"]
    for name, values in first.values.items():
        np.testing.assert_array_equal(second.values[name], values)
    proba = [one.predict_proba(one_X) for one, one_X in zip(fitted, given, strict=True)]
    np.testing.assert_allclose(proba[1], proba[0], atol=1e-9)


def test_a_file_is_whole(untrained: None, tmp_path: Path) -> None:
    """An encoder that is an object is built anew of its arguments, with its weights."""
    template = Image(3, crop=16, depths=(1,), widths=(4,), frozen=True)
    fitted = model("joint", encoders={"xray": template, "notes": NOTES}).fit(X, Y)
    again = CM2Classifier.load(fitted.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.frozen_.encoders_["xray"] is not template


def test_a_missing_modality_says_nothing(untrained: None) -> None:
    fitted = model("linear").fit(X, Y)
    hidden = X | {"xray": list(GREY)}
    gone = {"xray": np.zeros(ROWS, bool)}
    less = X | {"xray": [None] * ROWS}
    np.testing.assert_array_equal(
        fitted.predict_proba(hidden, present=gone), fitted.predict_proba(less)
    )


def test_the_pool_trains_networks_for_the_fusion_head_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shrink(monkeypatch)
    fitted = model("pooled", n_networks=1).fit(X, Y)
    heads = fitted.head_.heads_ | fitted.head_.left_out_
    assert not any(isinstance(head, Embedded) for head in heads.values())
    learned = dict(NOTES, frozen=False)
    mixed = model("joint", encoders={"xray": XRAY, "notes": learned}, n_networks=2).fit(X, Y)
    assert isinstance(mixed.head_, Embedded)
    assert list(mixed.frozen_.encoders_) == ["xray"]
    widths = [each.shape[1] for each in mixed._blocks(X, None).values.values()]
    assert widths == [2, 4], "the notes are embedded by each network later"


def test_networks_alone_need_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    fitted = model("pooled", n_networks=1).fit(X, Y)
    numbers = fitted._blocks(X, None)
    network = fitted.head_.left_out_.get("fusion") or fitted.head_.heads_["fusion"]
    spread = network.spread(numbers)
    imputed = network.impute(numbers, 2)

    def fail(*_: Any) -> None:
        pytest.fail("a frozen encoder reads")

    monkeypatch.setattr(Frozen, "read", fail)
    np.testing.assert_array_equal(fitted.predict_spread(X), spread)
    np.testing.assert_array_equal(fitted.impute(X, draws=2), imputed)


def test_features_are_the_means_of_states() -> None:
    image = Image(3, crop=16, depths=(1,), widths=(4,)).eval()
    x = torch.as_tensor(GREY[:3])
    with torch.no_grad():
        wanted = image.body(pixel_values=image.colour(x)).pooler_output.flatten(1)
        torch.testing.assert_close(pooled(image, x), wanted)
        text = Text(3, vocabulary=9, width=8, layers=1, heads=2).eval()
        ids = torch.randint(1, 9, (2, 3, 5))
        mask = torch.ones(2, 3, 5, dtype=torch.bool)
        mask[0, 1:] = False
        states, _ = text.documents(Padded(ids, mask))
        found = pooled(text, Padded(ids, mask))
    torch.testing.assert_close(found, torch.stack([states[0, 0], states[1].mean(dim=0)]))


@pytest.mark.parametrize(
    ("modality", "section", "message"),
    [
        ("notes", {"kind": "series"}, "encoders.notes: 'series' does not read this modality"),
        ("notes", NOTES | {"wide": 3}, "encoders.notes: 'text' does not read .*'wide'"),
        ("xray", XRAY | {"crop": 64}, "encoders.xray: 'image' does not read .*at least 64"),
    ],
)
def test_an_encoder_that_does_not_fit_is_named(
    modality: str, section: dict[str, Any], message: str, untrained: None
) -> None:
    one = model("joint", encoders={modality: section | {"frozen": True}})
    few = {name: X[name] for name in ("labs", modality)}
    with pytest.raises(ValueError, match=message):
        one.fit(few, Y)
    pickle.loads(pickle.dumps(one))  # as a search over settings of which one fails may do


class Shades(Encoder):
    """An encoder of one's own, which has no features but its embedding."""

    def __init__(self, dim: int, *, frozen: bool = False) -> None:
        super().__init__(dim)
        self.linear = torch.nn.Linear(1, dim)
        if frozen:
            self.freeze()

    def forward(self, x: Any) -> torch.Tensor:
        out: torch.Tensor = self.linear(x.float().mean(dim=(1, 2))[:, None] / 255)
        return out


def test_an_encoder_of_ones_own_gives_its_embedding(untrained: None, tmp_path: Path) -> None:
    own = {"kind": f"{__name__}.Shades", "frozen": True}
    few = {name: X[name] for name in ("labs", "xray")}
    fitted = model("linear", encoders={"xray": own}, embedding_dim=3).fit(few, Y)
    assert fitted._blocks(few, None).values["xray"].shape == (ROWS, 3)
    again = CM2Classifier.load(fitted.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(again.predict_proba(few), fitted.predict_proba(few))


def test_a_modality_that_only_an_earlier_reader_knows(untrained: None) -> None:
    """Another site has taught the reader; none of these rows has a picture."""
    few = {name: X[name] for name in ("labs", "xray")}
    reader = Reader().fit(few)
    here = {"labs": X["labs"], "xray": [None] * ROWS}
    fitted = model("joint", encoders={"xray": XRAY}).fit(here, Y, reader=reader)
    np.testing.assert_allclose(fitted.predict_proba(few), fitted.predict_proba(here), atol=1e-3)


def test_scales_do_not_depend_on_the_order_of_labels(untrained: None) -> None:
    """Classes weigh in the loss of their own label alone."""
    labels = np.stack([Y, (np.arange(ROWS) % 7 == 0).astype(np.int64)], axis=1)
    fitted = [
        model("linear", class_weight="balanced").fit(X, one) for one in (labels, labels[:, ::-1])
    ]
    first, second = (one.predict_proba(X) for one in fitted)
    np.testing.assert_allclose(second[:, ::-1], first, atol=1e-9)
