"""Vocabularies and tokens of a prepared folder: made once, by any process, and read afterwards."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2.core.errors import InputError
from cm2.samples import texts, tokens, vocabulary
from cm2.samples.container import Samples
from prepared_batches import Prepared
from prepared_folder import make_folder, rewrite_manifest

LOOK = """
import errno
import hashlib, sys
from prepared_batches import Prepared
data = Prepared(sys.argv[1], modalities=["report"], tokens=16, verify=False)
read = data[range(len(data))].inputs["report"].values.numpy()
print(hashlib.sha256(data.vocabularies["report"].encode() + read.tobytes()).hexdigest())
"""


def notes(root: Path) -> None:
    """Gives a folder's stays notes of words in which many pairs of letters are equally common."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.permutation(list("abcdefgh"))[:5]) for _ in range(60)]
    reports = pd.read_parquet(root / "reports.parquet")
    reports["text"] = [" ".join(rng.permutation(words)) for _ in range(len(reports))]
    reports.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)


def count(patch: pytest.MonkeyPatch, module: object, name: str) -> list[None]:
    """A list that grows with each call of a function."""
    calls: list[None] = []
    original = getattr(module, name)

    def counted(*given: object, **more: object) -> object:
        calls.append(None)
        return original(*given, **more)

    patch.setattr(module, name, counted)
    return calls


def test_processes_that_start_together_read_the_same_words(root: Path, tmp_path: Path) -> None:
    """Two on one folder, and this one, afterwards, on a copy that has no tokens yet."""
    notes(root)
    copy = Path(shutil.copytree(root, tmp_path / "unread"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOOK, str(root)],
            env={
                **os.environ,
                "PYTHONHASHSEED": str(seed),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    said = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    data = Prepared(copy, modalities=["report"], tokens=16)
    read = data[range(len(data))].inputs["report"].values.numpy()
    here = hashlib.sha256(data.vocabularies["report"].encode() + read.tobytes()).hexdigest()
    assert said == [here, here]
    kept = [sorted(path.name for path in (place / "tokens").iterdir()) for place in (root, copy)]
    assert kept[0] == kept[1]
    assert {name.rpartition(".")[2] for name in kept[0]} == {"npy", "parquet", "json"}


def test_texts_are_read_once_for_all_splits_and_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = count(monkeypatch, vocabulary, "learn")
    cut = count(monkeypatch, tokens, "chunk")
    first = {split: Prepared(root, tokens=16, split=split) for split in ("train", "test", None)}
    for split, data in first.items():
        again = Prepared(root, tokens=16, split=split, setting="partial", chunks=8)
        assert again.vocabularies == data.vocabularies
        rows = range(len(data))
        for one, other in zip(
            data[rows].inputs["report"], again[rows].inputs["report"], strict=True
        ):
            assert torch.equal(one, other)
        assert torch.equal(data[rows].hours["report"], again[rows].hours["report"])
    assert len(Prepared(root, tokens=16, split="validation", chunks=1)) > 0
    assert (len(learned), len(cut)) == (1, 1)
    Prepared(root, tokens=8)
    Prepared(root, tokens=8, chunks_per_document=1)
    assert (len(learned), len(cut)) == (1, 3)
    # Other labels or splits may be other training patients, other texts are other words.
    reports = pd.read_parquet(root / "reports.parquet")
    reports.assign(text=reports["text"] + " sepsis").to_parquet(root / "reports.parquet")
    rewrite_manifest(root)
    assert "sepsis" in Prepared(root, tokens=8).vocabularies["report"]
    assert (len(learned), len(cut)) == (2, 4)


def test_order_of_rows_and_names_of_patients_do_not_enter(root: Path, tmp_path: Path) -> None:
    notes(root)
    other = make_folder(tmp_path / "other")
    notes(other)
    reports = pd.read_parquet(other / "reports.parquet").sample(frac=1, random_state=0)
    reports.to_parquet(other / "reports.parquet")
    stays = pd.read_parquet(other / "stays.parquet")
    stays.assign(subject_id=9000 - stays["subject_id"]).to_parquet(other / "stays.parquet")
    rewrite_manifest(other)
    one, two = (Prepared(place, modalities=["report"]) for place in (root, other))
    assert one.vocabularies == two.vocabularies
    assert torch.equal(*(data[range(len(data))].inputs["report"].values for data in (one, two)))


def test_a_piece_needs_five_training_patients(root: Path) -> None:
    stays = pd.read_parquet(root / "stays.parquet").query("has_report").set_index("stay_id")
    reports = pd.read_parquet(root / "reports.parquet")
    subjects = stays.loc[reports["stay_id"], "subject_id"].to_numpy()
    parts = stays.loc[reports["stay_id"], "split"].to_numpy()
    some = pd.unique(subjects[parts == "train"])
    for name, known in {"zweig": some[:4], "quix": some[:5]}.items():
        reports.loc[np.isin(subjects, known), "text"] += f" {name} {name}"
    reports.loc[parts != "train", "text"] += " zweig"  # of many, but none that is learned from
    reports.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)
    Prepared(root, modalities=["report"])
    [path] = (root / "tokens").glob("*.json")
    pieces = json.loads(path.read_text())["model"]["vocab"]
    assert "quix" in pieces
    assert not {"zweig", "##weig", "zwei", "zw"} & set(pieces)
    reports = reports[np.isin(subjects, some[:4])]
    reports.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)
    stays = pd.read_parquet(root / "stays.parquet")
    stays["has_report"] = stays["stay_id"].isin(reports["stay_id"])
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match=r"modality 'report': .* 5 training patients"):
        Prepared(root, modalities=["report"])


def test_a_folder_that_cannot_be_written_is_read_alike(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Prepared(root, modalities=["report"])
    shutil.rmtree(root / "tokens")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(UserWarning, match="cannot be written to .* read anew each time"):
        after = Prepared(root, modalities=["report"])
    assert before.vocabularies == after.vocabularies
    assert torch.equal(*(data[[0, 3]].inputs["report"].values for data in (before, after)))


def test_damaged_tokens_are_named(root: Path) -> None:
    Prepared(root, modalities=["report"])
    [path] = (root / "tokens").glob("*.npy")
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match=r"does not fit the tokens beside it; delete .*tokens"):
        Prepared(root, modalities=["report"])
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not readable; delete"):
        Prepared(root, modalities=["report"])
    path.unlink()
    assert len(Prepared(root, modalities=["report"])) > 0


def test_documents_are_not_read_where_words_and_tokens_are_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Prepared(root, modalities=["report"])
    calls = count(monkeypatch, texts, "documents")
    again = Prepared(root, modalities=["report"])
    assert calls == []
    assert torch.equal(first[[0, 2]].inputs["report"].values, again[[0, 2]].inputs["report"].values)
    column = Samples.open(root, ["series", "report"], "train", missing_rate=0.5).columns["report"]
    assert calls == []
    assert [len(one) > 0 for one in column.values] == column.present.tolist()
    assert len(calls) == 1


def test_a_stay_with_blank_documents_alone_is_named(root: Path) -> None:
    reports = pd.read_parquet(root / "reports.parquet")
    stay = reports["stay_id"].iloc[0]
    reports.loc[reports["stay_id"] == stay, "text"] = "  "
    reports.to_parquet(root / "reports.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match="has nothing of modality 'report' for 1 stays"):
        Prepared(root, modalities=["report"], split=None)
