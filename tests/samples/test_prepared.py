"""Prepared data as batches: the right rows, nothing in absent ones, nothing learned from tests."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2.core import persistence
from cm2.core.errors import InputError
from cm2.core.records import Padded
from cm2.core.removal import luck
from cm2.samples import embeddings, tokens, vocabulary
from cm2.samples.batches import Rows, loader
from cm2.samples.inputs import Reader
from laws import monte_carlo
from prepared_batches import Prepared
from prepared_folder import make_folder, rewrite_manifest, write_reports

ALL = ("series", "cxr", "report", "vitals")


def test_every_kind_comes_as_promised(shared: Path) -> None:
    data = Prepared(shared, tokens=16)
    assert isinstance(data, Rows)
    assert data.modalities == ALL
    batch = data[range(len(data))]
    rows = len(data)
    series, text = batch.inputs["series"], batch.inputs["report"]
    assert isinstance(series, Padded)
    assert series.values.shape == (rows, 6, 76)
    assert series.values.dtype == batch.inputs["vitals"].dtype == torch.float32
    assert text.values.shape == text.mask.shape
    assert text.values.dtype == torch.int64
    assert text.values.shape[2] <= 16
    assert batch.inputs["cxr"].shape == (rows, 256, 256)
    assert batch.inputs["cxr"].dtype == torch.uint8
    assert data.shape["series"] == {"features": 76}
    assert data.shape["report"]["vocabulary"] > int(text.values.max())
    assert data.shape["cxr"] == {"crop": 224}
    assert data.classes == 2
    assert torch.equal(batch.target, torch.tensor(data.stays["label"].tolist()))
    assert batch.rows.tolist() == list(range(rows))


def test_rows_are_those_of_their_stay(shared: Path) -> None:
    data = Prepared(shared, split=None)
    picked = torch.tensor([5, 2, 2, 17])
    batch = data[picked]
    stays = torch.tensor(data.stays["stay_id"].tolist())[picked]
    series = batch.inputs["series"]
    steps = torch.arange(series.mask.shape[1])
    scale = data.reader.learned_["series"].scaler_
    raw = np.zeros((*series.mask.shape, 76))
    raw[..., 0], raw[..., 1] = stays[:, None], steps
    wanted = scale.transform(raw.reshape(-1, 76)).reshape(raw.shape)
    wanted[~series.mask.numpy()] = 0
    np.testing.assert_array_equal(series.values[..., :2], wanted[..., :2].astype(np.float32))
    has = batch.present[:, 1]
    assert torch.equal(batch.inputs["cxr"][:, 0, 0][has].long(), stays[has])
    assert torch.equal(batch.present, data.present[picked])
    assert torch.equal(batch.target, data.target[picked])


def test_a_batch_is_its_rows(shared: Path) -> None:
    data = Prepared(shared, tokens=8)
    rows = [3, 0, 7]
    whole = data[rows]
    for place, row in enumerate(rows):
        one = data[row]
        assert len(one.present) == 1
        for name in data.modalities:
            x, y = whole.inputs[name], one.inputs[name]
            if isinstance(x, Padded):
                assert torch.equal(x.values[place][x.mask[place]], y.values[0][y.mask[0]])
            else:
                assert torch.equal(x[place], y[0])
    assert torch.equal(data[1:3].present, data.present[1:3])


def test_absent_rows_are_empty(shared: Path) -> None:
    data = Prepared(shared, missing_rate=0.5)
    batch = data[range(len(data))]
    for column, name in enumerate(data.modalities):
        absent = ~batch.present[:, column]
        x = batch.inputs[name]
        for part in x if isinstance(x, Padded) else [x]:
            assert not part[absent].any()
        if isinstance(x, Padded):
            assert x.mask[~absent].flatten(1).any(dim=1).all()


def test_a_modality_that_no_stay_has(tmp_path: Path) -> None:
    """Nothing can be learned of it; where it was learned before, its rows are empty."""
    root = make_folder(tmp_path / "data", absent=ALL[1:])
    with pytest.raises(InputError, match=r"data: modality 'cxr' is missing for every training"):
        Prepared(root)
    with pytest.raises(InputError, match=r"no stay of train has 'series' in the setting 'paired'"):
        Prepared(root, setting="paired")
    data = Prepared(root, fitted_on=make_folder(tmp_path / "home"))
    batch = data[[0, 1]]
    assert not batch.present[:, 1:].any()
    assert batch.inputs["report"].values.shape == (2, 1, 1)
    assert batch.inputs["cxr"].shape == (2, 256, 256)
    assert data[[]].inputs["series"].values.shape == (0, 1, 76)


def test_settings_choose_stays(shared: Path) -> None:
    stays = pd.read_parquet(shared / "stays.parquet")
    stays = stays[stays["split"] == "train"]
    partial = Prepared(shared, modalities=["cxr", "report"])
    assert partial.stays["stay_id"].tolist() == stays["stay_id"][stays["has_cxr"]].tolist()
    assert not partial.present[:, 1].all()
    paired = Prepared(shared, modalities=["cxr", "report"], setting="paired")
    both = stays["has_cxr"] & stays["has_report"]
    assert paired.stays["stay_id"].tolist() == stays["stay_id"][both].tolist()
    assert paired.present.all()


def test_removal_is_reproducible_nested_and_spares_one(shared: Path) -> None:
    names = ["series", "cxr", "vitals"]
    options = {"split": None, "setting": "paired", "modalities": names}
    lost = [~Prepared(shared, missing_rate=rate, **options).present for rate in (0, 0.3, 0.8)]
    assert not lost[0].any()
    assert not lost[2][:, 0].any()
    assert (lost[2] | ~lost[1]).all()
    assert lost[1].any()
    again = Prepared(shared, missing_rate=0.3, **options)
    assert torch.equal(~again.present, lost[1])
    other = Prepared(shared, missing_rate=0.3, seed=1, **options)
    assert not torch.equal(~other.present, lost[1])
    anywhere = Prepared(shared, missing_rate=0.8, removable="any", **options).present
    assert anywhere.any(dim=1).all()
    assert not anywhere[:, 0].all()
    # What is removed of a stay does not depend on which other modalities are read.
    alone = Prepared(shared, modalities=["series", "cxr"], missing_rate=0.3, split=None)
    column = dict(zip(alone.stays["stay_id"], alone.present[:, 1].tolist(), strict=True))
    assert [column[stay] for stay in again.stays["stay_id"]] == again.present[:, 1].tolist()


def test_luck_is_uniform_and_independent() -> None:
    n = 20000
    ids = np.arange(30000000, 30000000 + n)
    draws = np.stack([luck(ids, "cxr", 0), luck(ids, "report", 0), luck(ids, "cxr", 1)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=1) - 0.5).max() < monte_carlo(n, 12**-0.5)
    assert np.abs(np.corrcoef(draws)[np.triu_indices(3, 1)]).max() < monte_carlo(n)


@pytest.mark.parametrize("scaling", ["robust", "standard"])
def test_tables_are_standardised_by_the_training_stays(root: Path, scaling: str) -> None:
    options = {"modalities": ["vitals"], "scaling": scaling}
    train = Prepared(root, **options)
    values = train[range(len(train))].inputs["vitals"]
    assert values.shape[1] == 4  # pulse, constant, lactate, and the flag of lactate
    assert values[:, 0].mean().abs() < 1e-6
    # Drawing in what lies far out makes columns a little narrower.
    within = {"robust": 0.05, "standard": 1e-5}[scaling]
    assert values[:, 0].std(correction=0) == pytest.approx(1, rel=within)
    assert not values[:, 1].any()
    assert len(values[:, 3].unique()) == 2
    assert scaling == "robust" or set(values[:, 3].tolist()) == {0, 1}
    assert not values[:, 2].any()
    table = pd.read_parquet(root / "vitals.parquet")
    stays = pd.read_parquet(root / "stays.parquet").set_index("stay_id")
    table.loc[(stays.loc[table["stay_id"], "split"] == "test").to_numpy(), "pulse"] = 1e9
    table.to_parquet(root / "vitals.parquet")
    rewrite_manifest(root)
    again = Prepared(root, **options)
    assert torch.equal(again[range(len(again))].inputs["vitals"], values)


def test_the_vocabulary_is_that_of_the_training_texts(root: Path) -> None:
    before = Prepared(root, modalities=["report"])
    reports = pd.read_parquet(root / "reports.parquet")
    stays = pd.read_parquet(root / "stays.parquet").set_index("stay_id")
    unseen = (stays.loc[reports["stay_id"], "split"] != "train").to_numpy()
    reports.loc[unseen, "text"] = "zyzzyva quokka"
    reports.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)
    after = Prepared(root, modalities=["report"])
    assert after.shape == before.shape
    assert torch.equal(after[[0]].inputs["report"].values, before[[0]].inputs["report"].values)


def test_late_chunks_and_early_parts_of_documents_are_kept(root: Path) -> None:
    texts = ["one two three four five six seven eight", "nine", "ten"]
    stay = pd.read_parquet(root / "stays.parquet").query("has_report and split == 'train'")
    ids = stay["stay_id"].tolist()
    rows = [
        {"stay_id": i, "position": position, "hour": 0.0, "section": "x", "text": text}
        for i in ids
        for position, text in enumerate(texts)
    ]
    write_reports(root, np.array([], np.int64), np.random.default_rng(0))
    frame = pd.DataFrame(rows).sample(frac=1, random_state=0)
    frame.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)

    def lengths(**options: int) -> list[int]:
        data = Prepared(root, modalities=["report"], tokens=5, **options)
        return data[0].inputs["report"].mask.sum(dim=2)[0].tolist()

    assert lengths() == [5, 5, 4, 3, 3]
    assert lengths(chunks=3) == [4, 3, 3]
    assert lengths(chunks_per_document=1) == [5, 3, 3]
    assert lengths(chunks_per_document=1, chunks=2) == [3, 3]
    known = json.loads((root / "manifest.json").read_text())["modalities"]
    known["report"]["lines"] = True
    rewrite_manifest(root, modalities=known)
    assert lengths() == [5, 5, 5, 3]


def test_a_saved_tokenizer_is_used(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    words = ["lungs clear", "heart normal"] * 5
    vocabulary.learn(words, np.arange(10), size=60).save(str(path))
    data = Prepared(shared, modalities=["report"], tokenizer=path)
    assert data.shape["report"]["vocabulary"] == tokens.load(path).get_vocab_size() <= 60
    with pytest.raises(InputError, match="no such tokenizer file"):
        Prepared(shared, modalities=["report"], tokenizer=tmp_path / "none.json")
    # The same as the folder of a model of transformers.
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_file=str(path)).save_pretrained(tmp_path / "model")
    again = Prepared(shared, modalities=["report"], tokenizer=tmp_path / "model")
    assert torch.equal(again[[0]].inputs["report"].values, data[[0]].inputs["report"].values)


def test_embeddings_stand_in_for_their_modality(root: Path) -> None:
    data = Prepared(root, modalities=["cxr"], split=None)
    values = np.arange(len(data) * 3, dtype=np.float32).reshape(-1, 3)
    stays = data.stays["stay_id"].to_numpy()
    embeddings.save(root, "cxr", stays, values, {"encoder": "image"})
    used = Prepared(root, split=None, embedded=["cxr"])
    assert used.shape["cxr"] == {"features": 3}
    has = used.present[:, 1]
    found = used[range(len(used))].inputs["cxr"]
    wanted = dict(zip(stays, values, strict=True))
    rows = [wanted[stay] for stay in used.stays["stay_id"][has.numpy()]]
    scale = used.reader.learned_["cxr"].scaler_
    np.testing.assert_array_equal(
        found[has].numpy(), scale.transform(np.stack(rows)).astype(np.float32)
    )
    assert not found[~has].any()
    with pytest.raises(InputError, match="no embeddings of 'report'"):
        Prepared(root, embedded=["report"])
    for path in (root / "embeddings" / "cxr.json", root / "embeddings" / "cxr.npy"):
        whole = path.read_bytes()
        for damaged in (b"", b"[]", whole[:20]):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match="not readable; run cm2 embed again"):
                Prepared(root, embedded=["cxr"])
        path.write_bytes(whole)
    rewrite_manifest(root, task="another")
    with pytest.raises(InputError, match="made of other data"):
        Prepared(root, embedded=["cxr"])


def test_mistakes_are_named(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no modality 'reports'; did you mean 'report'\?"):
        Prepared(shared, modalities=["series", "reports"])
    with pytest.raises(InputError, match="each once"):
        Prepared(shared, modalities=["series", "series"])
    with pytest.raises(InputError, match="missing_rate should be"):
        Prepared(shared, missing_rate=1.0)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Prepared(tmp_path)


def test_damage_is_found(root: Path) -> None:
    whole = (root / "series.parquet").read_bytes()
    (root / "series.parquet").write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"series.parquet: is not as it was written"):
        Prepared(root)
    with pytest.raises(InputError, match="not readable as Parquet"):
        Prepared(root, verify=False)
    assert len(Prepared(root, modalities=["cxr"])) > 0
    (root / "series.parquet").unlink()
    with pytest.raises(InputError, match="is not there"):
        Prepared(root)
    pixels = (root / "images.npy").read_bytes()
    (root / "images.npy").write_bytes(pixels[: len(pixels) // 2])
    with pytest.raises(InputError, match="not readable as an array"):
        Prepared(root, modalities=["cxr"], verify=False)


def test_a_folder_of_another_version_or_shape_is_refused(root: Path) -> None:
    rewrite_manifest(root, format=4, cm2_version="9.0")
    with pytest.raises(InputError, match=r"format 4 by cm2 9\.0.*install a newer cm2"):
        Prepared(root)
    # Format 1 had no times.
    stays = pd.read_parquet(root / "stays.parquet").drop(columns="prediction_time")
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root, format=1)
    assert len(Prepared(root)) > 0
    stays.drop(columns="has_cxr").to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match=r"lacks the columns \['has_cxr'\]"):
        Prepared(root)
    stays.assign(has_report=True).to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match="nothing of modality 'report' for"):
        Prepared(root)
    stays.assign(subject_id=1).to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match="1 patients are in two splits"):
        Prepared(root)
    (root / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        Prepared(root)


def test_no_message_holds_a_value_of_a_patient(root: Path) -> None:
    stays = pd.read_parquet(root / "stays.parquet")
    stays.assign(stay_id=7654321).to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError) as caught:
        Prepared(root)
    assert "7654321" not in str(caught.value)


def test_it_goes_to_other_processes_without_its_pixels(shared: Path) -> None:
    data = Prepared(shared, modalities=["series", "cxr"])
    data[[0]]
    packed = pickle.dumps(data)
    assert len(packed) < 256 * 256 * 4
    again = pickle.loads(packed)
    assert torch.equal(again[[0, 1]].inputs["cxr"], data[[0, 1]].inputs["cxr"])


def test_workers_give_the_same_batches(shared: Path) -> None:
    data = Prepared(shared, modalities=["series", "cxr"])
    plain, read_ahead = (list(loader(data, 8, seed=3, workers=n)) for n in (0, 2))
    assert len(plain) == len(read_ahead)
    for one, other in zip(plain, read_ahead, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.inputs["cxr"], other.inputs["cxr"])
        assert torch.equal(one.inputs["series"].values, other.inputs["series"].values)


@pytest.mark.parametrize("scaling", ["robust", "standard"])
def test_scales_and_vocabulary_can_be_those_of_other_data(
    shared: Path, tmp_path: Path, scaling: str
) -> None:
    """In units: what another folder was scaled by in preparing does not matter."""
    other = make_folder(tmp_path / "other", seed=9)
    home = tmp_path / "home"
    shutil.copytree(shared, home)
    for root, center, width in ((other, 1.0, 2.0), (home, 3.0, 0.5)):
        known = json.loads((root / "manifest.json").read_text())["modalities"]
        known["series"] |= {"mean": {"c2": center}, "deviation": {"c2": width}}
        rewrite_manifest(root, modalities=known)
    options = {"modalities": ["series", "report", "vitals"], "tokens": 16, "scaling": scaling}
    moved = Prepared(other, fitted_on=home, **options)
    there = moved[range(len(moved))].inputs
    learned = moved.reader.learned_
    grid = pd.read_parquet(other / "series.parquet")
    grid = grid[grid["stay_id"].isin(moved.stays["stay_id"])].drop(columns=["stay_id", "bin"])
    units = grid.assign(c2=(grid["c2"] * 2 + 1).astype(np.float32)).to_numpy()
    mask = there["series"].mask
    np.testing.assert_array_equal(
        there["series"].values[mask], learned["series"].scaler_.transform(units).astype("float32")
    )
    if scaling == "standard":
        own = pd.read_parquet(home / "series.parquet")
        train = Prepared(home, modalities=["series"]).stays["stay_id"]
        center = (own.loc[own["stay_id"].isin(train), "c2"] * 0.5 + 3.0).mean()
        np.testing.assert_allclose(learned["series"].scaler_.center_[2], center, rtol=1e-6)
    assert moved.shape == Prepared(home, **options).shape
    assert moved.vocabularies == Prepared(home, **options).vocabularies


def test_labels_that_may_hold_together_are_rows_of_the_target(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", labels=("shock", "stroke"))
    data = Prepared(tmp_path / "a", modalities=["vitals"])
    assert data.labels == ("shock", "stroke")
    wanted = data.stays[["label_shock", "label_stroke"]].to_numpy()
    assert data.target is not None
    assert (data.target.numpy() == wanted).all()
    assert (data[[2, 0]].target.numpy() == wanted[[2, 0]]).all()
    # Of new patients, read on the scale of these, no label is known.
    make_folder(tmp_path / "new", seed=1)
    new = Prepared(
        tmp_path / "new", modalities=["vitals"], fitted_on=tmp_path / "a", labels=data.labels
    )
    assert new.labels == data.labels
    assert new.target is None
    stays = pd.read_parquet(tmp_path / "a" / "stays.parquet").drop(columns="label_shock")
    stays.to_parquet(tmp_path / "a" / "stays.parquet")
    rewrite_manifest(tmp_path / "a")
    with pytest.raises(InputError, match=r"lacks the columns \['label_shock'\]"):
        Prepared(tmp_path / "a", modalities=["vitals"])


def test_what_was_learned_stands_for_the_folder(tmp_path: Path) -> None:
    """In a file, with a column that is all missing in training, and on a scale of its own."""
    home, other = make_folder(tmp_path / "home"), make_folder(tmp_path / "other", seed=7, first=900)
    vitals = pd.read_parquet(home / "vitals.parquet")
    vitals.assign(lactate=np.nan).to_parquet(home / "vitals.parquet")
    for root, center in ((home, 0.0), (other, 0.3)):
        content = json.loads((root / "manifest.json").read_text())["modalities"]
        content["series"] |= {"mean": {"c2": center}, "deviation": {"c2": 2.0 + center}}
        rewrite_manifest(root, modalities=content)
    names = ["series", "events", "vitals", "cxr", "report"]
    there = Prepared(home, modalities=names, split=None)
    file = persistence.save(there.reader, tmp_path / "reader.cm2")
    kept = persistence.load(file, Reader)
    fitted = Prepared(other, fitted_on=home, modalities=names, split=None)
    shutil.rmtree(home)
    moved = Prepared(other, reader=kept, split=None)
    assert moved.modalities == fitted.modalities == tuple(names)
    assert moved.shape == fitted.shape
    assert moved.variables == fitted.variables
    assert moved.vocabularies == fitted.vocabularies
    rows = range(len(moved))
    for name, x in moved[rows].inputs.items():
        y = fitted[rows].inputs[name]
        for one, two in zip(x, y, strict=True) if isinstance(x, tuple) else [(x, y)]:
            assert torch.equal(one, two), name
    with zipfile.ZipFile(file) as archive:
        text = archive.read("schema.json").decode()
    for name in ("stay_id", "subject_id", "hadm"):
        assert name not in text
    values = np.zeros((len(fitted), 3), np.float32)
    embeddings.save(other, "vitals", fitted.stays["stay_id"].to_numpy(), values, {})
    with pytest.raises(ValueError, match="'vitals' is of kind 'embedding'; the fitted model expe"):
        Prepared(other, reader=kept, embedded=["vitals"])
    bare = make_folder(tmp_path / "bare")
    known = json.loads((bare / "manifest.json").read_text())["modalities"]
    del known["cxr"]
    rewrite_manifest(bare, modalities=known)
    with pytest.raises(InputError, match="no modality 'cxr'"):
        Prepared(bare, reader=kept)


def test_only_stays_with_a_label(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    stays = pd.read_parquet(root / "stays.parquet").astype({"label": "Int64"})
    stays.loc[3:9, "label"] = pd.NA
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    whole = Prepared(root, modalities=["series"], split=None)
    some = Prepared(root, modalities=["series"], split=None, labelled=True)
    assert whole.target is None
    assert some.target.tolist() == stays["label"][: len(whole)].dropna().tolist()
    assert len(some) == len(whole) - 7
