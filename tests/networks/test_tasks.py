"""Tasks against torch's own losses, and their links against each other."""

import pytest
import torch
from torch.nn import functional

from cm2.networks import tasks
from cm2.networks.tasks import Binary, Multiclass, Multilabel, Task

TASKS = [Binary(), Multiclass(4), Multilabel(3)]


def test_every_task_is_tried() -> None:
    assert {type(task) for task in TASKS} == {tasks.REGISTRY[name] for name in tasks.REGISTRY}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: type(t).__name__)
def test_logits_invert_probability(task: Task) -> None:
    logits = torch.randn(5, task.labels, dtype=torch.float64)
    p = task.probability(logits)
    torch.testing.assert_close(task.probability(task.logits(p)), p)
    edge = torch.zeros(1, task.labels)
    edge[0, 0] = 1.0
    assert task.logits(edge).isfinite().all()


def test_losses_equal_torch() -> None:
    code = torch.tensor([0, 3, 2])
    logits = torch.randn(3, 4)
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5])
    expected = functional.cross_entropy(logits, code, weight=weights, reduction="none")
    torch.testing.assert_close(Multiclass(4, weights=weights).loss(logits, code), expected)
    logit, truth = torch.randn(3, 1), torch.tensor([0, 1, 1])
    expected = functional.binary_cross_entropy_with_logits(
        logit[:, 0], truth.float(), pos_weight=torch.tensor(3.0), reduction="none"
    )
    torch.testing.assert_close(Binary(positive=3.0).loss(logit, truth), expected)
    labels = torch.tensor([[0, 1, 1], [1, 0, 0.0]])
    logits = torch.randn(2, 3)
    expected = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    weights = torch.tensor([1.0, 0.0, 2.0])
    torch.testing.assert_close(
        Multilabel(3, weights=weights).loss(logits, labels), (expected * weights).mean(1)
    )


def test_wrong_weights_are_named() -> None:
    with pytest.raises(ValueError, match="needs 4 finite weights"):
        Multiclass(4, weights=torch.ones(3))
    with pytest.raises(ValueError, match="needs a positive weight"):
        Binary(positive=0.0)
    with pytest.raises(ValueError, match="labels is 1"):
        Multiclass(1)
    with pytest.raises(ValueError, match="labels is 0"):
        Multilabel(0)
