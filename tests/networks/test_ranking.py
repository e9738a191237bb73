"""The AUROC by which an epoch is chosen is that of the tables."""

import numpy as np
import pytest
import torch

from cm2.evaluation import metrics
from cm2.networks.ranking import Ranking
from cm2.networks.tasks import Binary, Multiclass, Multilabel, Task


@pytest.mark.parametrize(
    "task", [Binary(), Multiclass(3), Multilabel(3)], ids=lambda t: str(t.labels)
)
def test_it_is_the_measure_of_evaluation(task: Task) -> None:
    """In two batches, with ties, with weights, and a label that nobody has."""
    rng = np.random.default_rng(0)
    several = isinstance(task, Multilabel)
    target = (
        rng.integers(2, size=(40, 3)) if several else rng.integers(max(task.labels, 2), size=40)
    )
    if several:
        target[:, 1] = 0
    probability = rng.integers(1, 9, size=(40, task.labels)) / 10
    if isinstance(task, Multiclass):
        probability /= probability.sum(axis=1, keepdims=True)
    weight = rng.uniform(0.5, 2.0, size=40)
    ranking = Ranking(task)
    for rows in (slice(0, 25), slice(25, 40)):
        parts = (torch.as_tensor(part[rows]) for part in (probability, target, weight))
        ranking.add(*parts)
    given = probability[:, 0] if task.labels == 1 else probability
    expected = metrics.measure(target, given, weight[None])["auroc"][0]
    assert ranking.auroc() == pytest.approx(expected, abs=1e-12)
