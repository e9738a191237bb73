"""Arrays as batches: every row once an epoch, reproducible, nothing unread left in absent rows."""

import numpy as np
import pytest
import torch

from cm2.samples.batches import ArrayDataset, Batches, loader


def dataset(rows: int = 10) -> ArrayDataset:
    values = {"a": np.arange(2.0 * rows).reshape(rows, 2), "b": np.ones((rows, 1))}
    present = np.ones((rows, 2), bool)
    present[3, 1] = False
    values["b"][3] = np.nan
    return ArrayDataset(values, present, np.arange(rows), np.linspace(0, 1, rows))


def test_batches_hold_whole_rows() -> None:
    data = dataset()
    for batch in loader(data, 4, seed=0):
        rows = batch.target
        assert torch.equal(batch.inputs["a"], data.inputs["a"][rows])
        assert torch.equal(batch.present, data.present[rows])
        assert torch.equal(batch.weight, data.weight[rows])
    assert data[2].inputs["a"].tolist() == [[4.0, 5.0]]
    assert data.take([1, 3]).target.tolist() == [1, 3]


@pytest.mark.parametrize(("rows", "size"), [(10, 4), (10, 3), (9, 4), (1, 4), (8, 4), (5, 1)])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_row_once_an_epoch(rows: int, size: int, seed: int | None) -> None:
    batches = Batches(rows, size, seed=seed)
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches)
        assert sorted(torch.cat(epoch).tolist()) == list(range(rows))
        if seed is not None and rows >= size:
            assert min(map(len, epoch)) >= size / 2


def test_order_depends_on_seed_and_epoch() -> None:
    first, second = Batches(50, 50, seed=1), Batches(50, 50, seed=1)
    one = next(iter(first))
    assert torch.equal(one, next(iter(second)))
    first.set_epoch(7)
    two = next(iter(first))
    assert not torch.equal(one, two)
    second.set_epoch(7)
    assert torch.equal(two, next(iter(second))), "known without having passed epochs 1 to 6"
    assert torch.equal(next(iter(Batches(5, 5))), torch.arange(5))


@pytest.mark.parametrize("rows", [50, 53, 64])
def test_processes_share_every_batch(rows: int) -> None:
    whole = list(Batches(rows, 12, seed=3))
    shares = [list(Batches(rows, 12, seed=3, process=k, processes=3)) for k in range(3)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert torch.equal(torch.cat(parts).sort().values, batch.sort().values)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) > 0
    with pytest.raises(ValueError, match="a batch needs 6 samples"):
        Batches(rows, 4, process=0, processes=3)


def test_batches_know_their_rows() -> None:
    data = dataset()
    assert data[torch.tensor([2, 0])].rows.tolist() == [2, 0]
    assert data[1].rows.tolist() == [1]
    assert data[slice(1, None)].rows.tolist() == list(range(1, len(data)))


def test_absent_rows_hold_zeros() -> None:
    assert dataset().inputs["b"][3].item() == 0.0


def test_mistakes_are_named() -> None:
    present = np.ones((2, 1), bool)
    with pytest.raises(ValueError, match="'a' has 3 rows, present has 2"):
        ArrayDataset({"a": np.ones((3, 1))}, present)
    with pytest.raises(ValueError, match="one column for each of the modalities"):
        ArrayDataset({"a": np.ones((2, 1)), "b": np.ones((2, 1))}, present)
    with pytest.raises(ValueError, match="'a' has NaN or infinity"):
        ArrayDataset({"a": np.full((2, 1), np.nan)}, present)
    with pytest.raises(ValueError, match="target has 3 rows"):
        ArrayDataset({"a": np.ones((2, 1))}, present, np.ones(3))
    with pytest.raises(ValueError, match="the size is 0"):
        Batches(3, 0)
