"""Measurements in batches, and the hours of texts and images: in order and in time."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn

from cm2.clinical.prepare import write
from cm2.core.errors import InputError
from cm2.core.records import Events as Record
from cm2.networks.encoders import Dense, Encoder
from cm2.networks.models import CM2
from cm2.networks.models.base import pieces
from cm2.networks.tasks import Multiclass
from cm2.samples.batches import loader
from cm2.samples.container import Samples
from cm2.samples.inputs import Reader
from cm2.samples.kinds import UNSEEN
from cm2.samples.scaling import REACH, RobustScaler
from prepared_batches import Prepared
from prepared_folder import VARIABLES, rewrite_manifest

BOTH = ["events", "vitals"]


def change(root: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Writes other events."""
    path = root / "events.parquet"
    edit(pd.read_parquet(path)).to_parquet(path)
    rewrite_manifest(root)


def test_events_are_those_of_the_file_in_the_order_of_their_hours(shared: Path) -> None:
    """Beside the grid, for the stays that have it; each variable on the scale of training."""
    data = Prepared(shared, modalities=["series", "events"], split=None)
    table = pd.read_parquet(shared / "events.parquet")
    stays = pd.read_parquet(shared / "stays.parquet").set_index("stay_id")
    train = table[(stays.loc[table["stay_id"], "split"] == "train").to_numpy()]
    names = sorted(VARIABLES)
    number = data.stays["stay_id"]
    scales = {
        name: RobustScaler().fit(own["value"].to_numpy(np.float32)[:, None])
        for name, own in train[train["stay_id"].isin(number)].groupby("variable")
    }
    assert data.shape["events"] == {"vocabulary": len(names) + 2}
    assert torch.equal(data.present[:, 0], data.present[:, 1])
    batch = data[range(len(data))].inputs["events"]
    assert isinstance(batch, Record)
    for i, stay in enumerate(data.stays["stay_id"]):
        own = table[table["stay_id"] == stay].sort_values("hour", kind="stable")
        mask = batch.mask[i]
        assert int(mask.sum()) == len(own)
        np.testing.assert_array_equal(batch.hour[i][mask], own["hour"].to_numpy(np.float32))
        assert [names[v - UNSEEN - 1] for v in batch.variable[i][mask]] == list(own["variable"])
        raw = own["value"].to_numpy(np.float32)
        wanted = [
            scales[name].transform(np.array([[x]])).item()
            for name, x in zip(own["variable"], raw, strict=True)
        ]
        np.testing.assert_array_equal(batch.value[i][mask], np.array(wanted, np.float32))


def test_hours_ascend_and_padding_is_zero(shared: Path) -> None:
    data = Prepared(shared, modalities=BOTH, missing_rate=0.5, removable="any")
    batch = data[range(len(data))]
    hour, variable, value, mask = batch.inputs["events"]
    both = mask[:, 1:] & mask[:, :-1]
    assert (hour.diff(dim=1)[both] >= 0).all()
    assert (mask[:, 1:] <= mask[:, :-1]).all(), "real events come first"
    assert torch.equal(variable > 0, mask)
    for part in (hour, variable, value):
        assert not part[~mask].any()
    absent = ~batch.present[:, 0]
    assert absent.any()
    assert not mask[absent].any()
    assert mask[~absent].any(dim=1).all()


def test_events_of_one_hour_keep_the_order_in_which_the_last_one_counts(root: Path) -> None:
    def edit(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(hour=5.0, variable="glucose", value=np.arange(len(table)) % 7.0)

    change(root, edit)
    events = Prepared(root, modalities=["events"], split=None)
    table = pd.read_parquet(root / "events.parquet")
    first = table[table["stay_id"] == events.stays["stay_id"].iloc[0]]
    found = events[0].inputs["events"].value[0]
    assert found.argsort(stable=True).tolist() == first["value"].argsort(kind="stable").tolist()


def test_they_are_read_if_named_only(shared: Path, root: Path) -> None:
    assert "events" not in Prepared(shared).modalities
    assert Prepared(shared, modalities=BOTH).present[:, 0].all()
    assert len(Prepared(shared, modalities=BOTH, setting="paired")) < len(Prepared(shared))
    with pytest.raises(InputError, match="did you mean 'events'"):
        Prepared(shared, modalities=["event"])
    known = json.loads((root / "manifest.json").read_text())["modalities"]
    del known["series"]
    rewrite_manifest(root, modalities=known)
    with pytest.raises(InputError, match="no modality 'events'"):
        Prepared(root, modalities=["events"])


def test_what_was_measured_after_the_prediction_is_refused(root: Path) -> None:
    """PhysioNet 2012 uses rows of the last minute, so that the end itself is inside."""
    rewrite_manifest(root, options={"hours": 48.0})
    last = pd.read_parquet(root / "events.parquet").index[-1]

    def at(hour: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda table: table.assign(hour=table["hour"].where(table.index != last, hour))

    change(root, at(48.0))
    Prepared(root, modalities=["events"], split=None)
    change(root, at(48.1))
    with pytest.raises(InputError, match="1 events are from after the prediction, at hour 48"):
        Prepared(root, modalities=["events"], split=None)
    change(root, at(np.nan))
    with pytest.raises(InputError, match="missing or infinite"):
        Prepared(root, modalities=["events"], split=None)
    change(root, lambda table: table.assign(hour=1.0, variable=None))
    with pytest.raises(InputError, match="without a variable"):
        Prepared(root, modalities=["events"], split=None)


def test_variables_and_scales_are_those_of_training(root: Path) -> None:
    """Of another split, and of another folder: neither moves them, and new variables are one."""
    before = Prepared(root, modalities=["events"])
    stays = pd.read_parquet(root / "stays.parquet").set_index("stay_id")["split"]

    def edit(table: pd.DataFrame) -> pd.DataFrame:
        held_out = (stays[table["stay_id"]] != "train").to_numpy()
        table.loc[held_out, "value"] = 1e6
        table.loc[held_out & (table["variable"] == "weight").to_numpy(), "variable"] = "sodium"
        return table

    change(root, edit)
    after = Prepared(root, modalities=["events"])
    assert after.shape == before.shape
    whole = [data[range(len(data))].inputs["events"] for data in (before, after)]
    assert all(torch.equal(a, b) for a, b in zip(*whole, strict=True))
    test = Prepared(root, modalities=["events"], split="test")
    new = test[range(len(test))].inputs["events"]
    assert (new.variable == UNSEEN).any()
    assert not new.value[new.variable == UNSEEN].any()
    assert (new.value[new.variable > UNSEEN] == REACH).all()  # drawn in from a million


def test_variables_are_named_by_their_numbers(shared: Path) -> None:
    data = Prepared(shared, modalities=BOTH, split="test")
    _, variable, _, mask = data[range(len(data))].inputs["events"]
    table = pd.read_parquet(shared / "events.parquet")
    table = table[table["stay_id"].isin(data.stays["stay_id"])].sort_values(["stay_id", "hour"])
    assert [data.variables[v] for v in variable[mask].tolist()] == list(table["variable"])
    assert data.variables[: UNSEEN + 1] == [None, None]
    assert Prepared(shared).variables == []


def frames() -> list[pd.DataFrame | None]:
    """Events of forty samples, some without any."""
    rng = np.random.default_rng(0)
    found = []
    for row in range(40):
        size = int(rng.integers(1, 9))
        hour, value = rng.uniform(0, 24, size), rng.normal(80 + row % 2, 10, size)
        variable = rng.choice(VARIABLES, size)
        frame = pd.DataFrame({"hour": hour, "variable": variable, "value": value})
        found.append(None if row % 5 == 4 else frame)
    return found


def test_frames_of_events_are_samples() -> None:
    """In any order of rows; six numbers a variable for what needs no encoder."""
    given = frames()
    S = Samples({"events": given})
    assert S.kinds == {"events": "events"}
    assert S.present[:, 0].tolist() == [one is not None for one in given]
    names = sorted(VARIABLES)
    found = S.columns["events"].summaries(names).reshape(40, 6, len(names))
    assert np.isnan(found[~S.present[:, 0]]).all()
    for row in np.flatnonzero(S.present[:, 0]):
        for column, name in enumerate(names):
            frame = given[row].sort_values("hour")
            own = frame.loc[frame["variable"] == name, "value"].astype("f4")
            count = [float(len(own))]
            wanted = [np.nan] * 5 + count
            if len(own):
                wanted = [own.iloc[0], own.iloc[-1], own.min(), own.max(), own.mean(), *count]
            np.testing.assert_allclose(found[row, :, column], wanted, rtol=1e-6)
    shuffled = [None if one is None else one.sample(frac=1, random_state=0) for one in given]
    blocks, again = (Reader().fit_blocks({"events": one[:4]}) for one in (given, shuffled))
    np.testing.assert_array_equal(blocks.values["events"], again.values["events"])
    rows = np.array([2, 0, -1])
    one, two = (part.inputs["events"].take(rows) for part in (blocks, again))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


def test_mistakes_in_frames_are_named() -> None:
    given = frames()[:4]
    with pytest.raises(ValueError, match="events are a DataFrame of hour, variable, value, but th"):
        Samples({"a": [*given, given[0].drop(columns="hour")]}, kinds={"a": "events"})
    with pytest.raises(ValueError, match="row 1 has events without a variable"):
        Samples({"a": [given[0], given[1].assign(variable=None)]})
    with pytest.raises(ValueError, match="hours and values of row 0 are not numbers"):
        Samples({"a": [given[0].assign(value="high")]})
    with pytest.raises(ValueError, match="whose hour is missing or infinite in 1 samples, the fir"):
        Reader().fit({"a": [given[0], given[1].assign(hour=np.nan)]})


def test_a_row_alone_is_the_row_of_any_batch(shared: Path) -> None:
    """But for padding; in Lightning's module, in the share of each of two processes too."""
    data = Prepared(shared, modalities=BOTH)
    whole = data[range(len(data))].inputs["events"]
    seen = []
    for process in range(2):
        for batch in loader(data, 8, seed=1, process=process, processes=2):
            for row, *given in zip(batch.rows.tolist(), *batch.inputs["events"], strict=True):
                alone = data[row].inputs["events"]
                for part, one, every in zip(given, alone, whole, strict=True):
                    assert torch.equal(part[given[-1]], one[0])
                    assert torch.equal(part[given[-1]], every[row][whole.mask[row]])
                seen.append(row)
    assert sorted(seen) == list(range(len(data)))


def test_an_event_takes_twelve_bytes(root: Path) -> None:
    """What goes to the workers: no texts, no table, the events of its stays only."""
    change(root, lambda table: pd.concat([table] * 200, ignore_index=True))
    data = Prepared(root, modalities=["events"], split=None)
    size = len(pickle.dumps(data.inputs["events"]))
    events = len(pd.read_parquet(root / "events.parquet"))
    assert 12 * events < size < 12 * events + 4000


def test_hours_of_chunks_and_images(shared: Path) -> None:
    data = Prepared(shared, tokens=8, split=None)
    batch = data[range(len(data))]
    assert set(batch.hours) == {"report", "cxr"}
    tokens, hours = batch.inputs["report"], batch.hours["report"]
    real = tokens.mask.any(dim=2)
    assert hours.shape == real.shape
    assert not hours[~real].any()
    table = pd.read_parquet(shared / "reports.parquet")
    for i, stay in enumerate(data.stays["stay_id"]):
        # a document of so many words has so many chunks, all from its hour
        own = table[table["stay_id"] == stay]
        assert set(hours[i][real[i]].tolist()) <= set(own["hour"])
        assert (hours[i][real[i]].diff() >= 0).all()
    index = pd.read_parquet(shared / "images.parquet").set_index("stay_id")["hour"]
    found = index.reindex(data.stays["stay_id"], fill_value=0.0)
    np.testing.assert_array_equal(batch.hours["cxr"], found)
    assert data[[3, 0]].hours["cxr"].tolist() == batch.hours["cxr"][[3, 0]].tolist()


def test_hours_of_lines_are_those_of_the_last(root: Path) -> None:
    known = json.loads((root / "manifest.json").read_text())["modalities"]
    known["report"]["lines"] = True
    rewrite_manifest(root, modalities=known)
    last = pd.read_parquet(root / "reports.parquet").groupby("stay_id")["hour"].max()
    data = Prepared(root, modalities=["report"], tokens=64, split=None)
    found = data[range(len(data))].hours["report"].max(dim=1).values
    np.testing.assert_array_equal(found, last[data.stays["stay_id"]])


@pytest.mark.parametrize("name", ["reports", "images"])
def test_hours_may_be_unknown_for_all_but_not_for_some(root: Path, name: str) -> None:
    modality = {"reports": "report", "images": "cxr"}[name]
    path = root / f"{name}.parquet"
    table = pd.read_parquet(path)
    for unknown in (table.drop(columns="hour"), table.assign(hour=np.nan)):
        unknown.to_parquet(path)
        rewrite_manifest(root)
        assert Prepared(root, modalities=[modality])[[0]].hours == {}
    table.assign(hour=table["hour"].where(table.index > 0)).to_parquet(path)
    rewrite_manifest(root)
    with pytest.raises(InputError, match=rf"{name}\.parquet: has missing"):
        Prepared(root, modalities=[modality])


def test_nobody_knows_when_texts_from_python_are_from(tmp_path: Path) -> None:
    write(tmp_path / "mine", {"note": ["a word"] * 40}, y=np.arange(40) % 2)
    assert Prepared(tmp_path / "mine")[[0]].hours == {}


def flat(x: object) -> list[Tensor]:
    """All tensors of a batch."""
    parts = x.values() if isinstance(x, dict) else x
    if isinstance(x, Tensor) or x is None:
        return [] if x is None else [x]
    return [tensor for part in parts for tensor in flat(part)]


def test_they_move_and_are_cut_like_all_else(shared: Path) -> None:
    data = Prepared(shared, modalities=["events", "report", "cxr"], tokens=8)
    batch = data[range(8)]
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved.inputs["events"], Record)
    assert len(flat(moved)) == len(flat(batch)) == 12
    assert all(tensor.device.type == "meta" for tensor in flat(moved))
    cut = list(pieces(batch, 3))
    assert torch.equal(torch.cat([p.hours["cxr"] for p in cut]), batch.hours["cxr"])
    hours = torch.cat([p.inputs["events"].hour for p in cut])
    assert torch.equal(hours, batch.inputs["events"].hour)


@pytest.mark.gpu
def test_they_are_pinned_and_reach_the_gpu(shared: Path) -> None:
    data = Prepared(shared, modalities=["events", "report", "cxr"], tokens=8)
    for batch in loader(data, 8):
        assert all(tensor.is_pinned() for tensor in flat(batch))
        moved = move_data_to_device(batch, torch.device("cuda"))
        assert torch.equal(moved.inputs["events"].hour.cpu(), batch.inputs["events"].hour)


def test_workers_give_the_same_events(shared: Path) -> None:
    data = Prepared(shared, modalities=["events", "report"], tokens=8)
    plain, ahead = (list(loader(data, 8, seed=3, workers=n)) for n in (0, 2))
    for one, other in zip(plain, ahead, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


class Bag(Encoder):
    """The mean of a layer over the events of a row: what a class of a user may look like."""

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__(dim)
        self.codes = nn.Embedding(vocabulary, dim)
        self.numbers = nn.Linear(2, dim)

    def forward(self, x: Record) -> Tensor:
        numbers = torch.stack([x.hour / 48, x.value], dim=-1)
        step = (self.codes(x.variable) + self.numbers(numbers)).tanh() * x.mask.unsqueeze(-1)
        return step.sum(dim=1) / x.mask.sum(dim=1, keepdim=True).clamp_min(1)


def test_a_model_reads_them_and_never_what_is_absent(shared: Path) -> None:
    data = Prepared(shared, modalities=BOTH, missing_rate=0.5, removable="any")
    batch = data[range(len(data))]
    encoders = {
        "events": Bag(4, **data.shape["events"]),
        "vitals": Dense(data.shape["vitals"]["features"], 4, width=4),
    }
    model = CM2(encoders, 2, components=1, width=8).eval()
    torch.manual_seed(0)
    logits = model(batch).logits
    Multiclass(2).loss(logits, batch.target).mean().backward()
    assert all(p.grad is not None for p in encoders["events"].parameters())
    hour, variable, value, mask = batch.inputs["events"]
    rows = batch.present[:, :1]
    spoilt = Record(hour.where(rows, torch.nan), variable.where(rows, 99), value, mask | ~rows)
    torch.manual_seed(0)
    other = model(batch._replace(inputs=batch.inputs | {"events": spoilt})).logits
    torch.testing.assert_close(other, logits, rtol=0, atol=0)
