"""The classifier on tables, series, texts and images: every head, one file, rows alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score

from cm2 import CM2Classifier, Samples
from cm2.core import persistence
from cm2.estimators.heads import Fusion, JointHead, fusion
from cm2.estimators.heads.encoding import reading
from cm2.estimators.heads.networks import inside
from cm2.networks import models
from cm2.networks.encoders import Dense, Text
from cm2.samples import vocabulary
from cm2.samples.inputs import Reader
from cm2.samples.kinds import TableColumn

ROWS = 96
RNG = np.random.default_rng(0)
Y = RNG.integers(2, size=ROWS)
TINY = {
    "vitals": {"kind": "series", "width": 8, "layers": 1},
    "notes": {"kind": "text", "width": 8, "layers": 1, "heads": 2, "tokens": 16},
    "xray": {"kind": "image", "depths": [1], "widths": [4]},
}


def modalities() -> dict[str, Any]:
    """Class tells in all of them; a quarter of each is missing, never all of a row."""
    missing = RNG.random((ROWS, 4)) < 0.25
    missing[missing.all(axis=1), 0] = False
    labs = RNG.normal(size=(ROWS, 3)) + Y[:, None]
    labs[missing[:, 0]] = np.nan
    grey = RNG.integers(0, 150, (ROWS, 24, 24)) + 80 * Y[:, None, None]
    words = np.array(["no acute findings", "acute failure with fever"])[Y]
    return {
        "labs": labs,
        "vitals": [
            None if gone else RNG.normal(size=(RNG.integers(1, 5), 2)) + y
            for gone, y in zip(missing[:, 1], Y, strict=True)
        ],
        "notes": [None if gone else str(w) for gone, w in zip(missing[:, 2], words, strict=True)],
        "xray": [
            None if gone else picture.astype(np.uint8)
            for gone, picture in zip(missing[:, 3], grey, strict=True)
        ],
    }


X = modalities()
S = Samples(X, y=Y, groups=np.arange(ROWS) // 2)


def classifier(**options: Any) -> CM2Classifier:
    small = {"embedding_dim": 4, "max_epochs": 2, "n_networks": 2, "batch_size": 32}
    return CM2Classifier(**small | {"encoders": TINY, "device": "cpu", "random_state": 0} | options)


@pytest.fixture(scope="module")
def pooled() -> CM2Classifier:
    """The default on all four kinds, its experts of series and tables alone made small."""
    with pytest.MonkeyPatch.context() as patch:
        from small_models import shrink

        shrink(patch)
        return classifier().fit(S)


def test_a_network_that_several_heads_read_is_in_a_file_once(
    pooled: CM2Classifier, tmp_path: Path
) -> None:
    with zipfile.ZipFile(pooled.save(tmp_path / "m.cm2")) as archive:
        arrays = [one for one in archive.infolist() if one.filename.endswith(".npy")]
    networks = inside(pooled.head_)
    assert len(networks) == 2, "each once"
    sizes = [value.numel() * value.element_size() for value in networks[0].state_dict().values()]
    large = [one.CRC for one in arrays if one.file_size > max(sizes)]
    assert len(large) == len(set(large)) >= 2


def test_a_pool_of_every_kind_learns(pooled: CM2Classifier) -> None:
    assert pooled.reader_.kinds_ == dict(zip(X, ("table", "series", "text", "image"), strict=True))
    proba = pooled.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == Y).mean() > 0.9
    np.testing.assert_allclose(np.exp(pooled.predict_log_proba(X)), proba)


def test_networks_are_trained_once_for_all_heads(pooled: CM2Classifier) -> None:
    heads = pooled.head_.heads_
    assert heads["joint"].fusion_ is heads["experts"].fusion_ is heads["fusion"]
    assert len(heads["joint"].heads_) == 2


def test_a_row_alone_is_as_in_a_cohort(pooled: CM2Classifier) -> None:
    whole = pooled.predict_proba(S)
    for row in (0, 7, 40):
        # Sums over a batch are rounded otherwise than those over one row, in float32.
        np.testing.assert_allclose(pooled.predict_proba(S[[row]])[0], whole[row], atol=1e-5)


def test_threads_change_no_prediction(pooled: CM2Classifier) -> None:
    many = S[np.tile(np.arange(ROWS), 12)]
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(pooled.predict_proba(many))
        finally:
            torch.set_num_threads(before)
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_a_modality_that_is_not_given_is_missing(pooled: CM2Classifier) -> None:
    some = {name: X[name] for name in ("labs", "notes")}
    gone = some | {"vitals": [None] * ROWS, "xray": [None] * ROWS}
    np.testing.assert_array_equal(pooled.predict_proba(some), pooled.predict_proba(gone))


def test_a_saved_pool_predicts_in_a_new_process_from_an_empty_folder(
    pooled: CM2Classifier, tmp_path: Path
) -> None:
    pooled.save(tmp_path / "a" / "model.cm2")
    (tmp_path / "empty").mkdir()
    arrays = {
        "labs": X["labs"][:9],
        "grey": np.stack([np.zeros((24, 24), np.uint8) if g is None else g for g in X["xray"][:9]]),
        "none": np.array([g is None for g in X["xray"][:9]]),
    }
    np.savez(tmp_path / "a" / "x.npz", **arrays)
    code = (
        "import numpy as np\n"
        "from cm2 import CM2Classifier\n"
        "x = np.load('../a/x.npz')\n"
        "grey = [None if gone else g for g, gone in zip(x['grey'], x['none'])]\n"
        "notes = ['acute failure with fever', None, 'no acute findings'] * 3\n"
        "vitals = [np.ones((2, 2)), np.zeros((3, 2)), None] * 3\n"
        "model = CM2Classifier.load('../a/model.cm2')\n"
        "X = {'labs': x['labs'], 'xray': grey, 'notes': notes, 'vitals': vitals}\n"
        "np.save('../a/p.npy', model.predict_proba(X))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    here = pooled.predict_proba(
        {
            "labs": X["labs"][:9],
            "xray": X["xray"][:9],
            "notes": ["acute failure with fever", None, "no acute findings"] * 3,
            "vitals": [np.ones((2, 2)), np.zeros((3, 2)), None] * 3,
        }
    )
    np.testing.assert_allclose(np.load(tmp_path / "a" / "p.npy"), here, atol=1e-6)


def test_a_file_holds_no_text_and_no_row(pooled: CM2Classifier, tmp_path: Path) -> None:
    import zipfile

    odd = "querulous"  # one patient's word alone
    notes = [*X["notes"][:-1], f"acute failure with {odd} fever"]
    model = classifier(head="fusion", n_networks=1, max_epochs=1).fit(X | {"notes": notes}, Y)
    path = model.save(tmp_path / "model.cm2")
    with zipfile.ZipFile(path) as archive:
        held = b"".join(archive.read(name) for name in archive.namelist())
    assert b"failure" in held
    assert odd.encode() not in held


@pytest.mark.parametrize("head", ["fusion", "joint"])
def test_one_head_alone(head: str) -> None:
    model = classifier(head=head).fit(X, Y)
    assert model.predict_proba(X).shape == (ROWS, 2)
    assert model.embed(X).shape == (ROWS, 4, 4)


def test_heads_on_embeddings_never_see_rows_of_their_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained, fitted = [], []
    train, fit = Fusion._train, JointHead.fit

    def watched_train(self: Fusion, blocks: Any, y: Any, *rest: Any) -> Any:
        trained.append(set(rest[2].tolist()))
        return train(self, blocks, y, *rest)

    def watched_fit(self: JointHead, blocks: Any, *rest: Any) -> Any:
        assert blocks.values["xray"].shape == (len(blocks.present), 4)
        fitted.append(blocks.values["number"][:, 0])
        return fit(self, blocks, *rest)

    monkeypatch.setattr(Fusion, "_train", watched_train)
    monkeypatch.setattr(JointHead, "fit", watched_fit)
    numbers = np.linspace(-1.0, 1.0, ROWS)[:, None]
    data = {"number": numbers, "xray": X["xray"]}
    encoders = {"xray": TINY["xray"]}
    model = classifier(head="joint", max_epochs=1, encoders=encoders).fit(data, Y)
    place = {
        value: row for row, value in enumerate(model.reader_.blocks(data).values["number"][:, 0])
    }
    seen = [{place[value] for value in part} for part in fitted]
    assert [len(part) for part in seen] == [ROWS // 2] * 2
    assert all(not theirs & rows for theirs, rows in zip(seen, trained, strict=True))


def test_validation_samples_stop_training_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All rows are learned from, those of validation are watched, and no file has them."""
    looked_at = []
    train = fusion.train

    def watched(network: Any, task: Any, training: Any, validation: Any, **options: Any) -> Any:
        looked_at.append((len(training), len(validation), validation.target.tolist()))
        return train(network, task, training, validation, **options)

    monkeypatch.setattr(fusion, "train", watched)
    model = classifier(head="fusion", max_epochs=1, encoders={"vitals": TINY["vitals"]})
    few = {"labs": X["labs"], "vitals": X["vitals"]}
    learn, stop = (Samples(few, y=Y)[rows] for rows in (slice(60), slice(60, None)))
    known = stop.present.any(axis=1)
    model.fit(learn[learn.present.any(axis=1)], validation=stop)
    assert [part[1] for part in looked_at] == [known.sum()] * 2
    assert all(part[2] == Y[60:][known].tolist() for part in looked_at)
    assert sum(part[0] for part in looked_at) == learn.present.any(axis=1).sum()
    again = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    assert again.head_.held is None
    with pytest.raises(
        ValueError, match="96 labels of classes that no training sample has, first at row 0"
    ):
        model.fit(S[:60], validation=Samples(few, y=np.full(ROWS, 2)))


@pytest.mark.parametrize(
    ("labels", "validation", "message"),
    [
        (Y, {"labs": X["labs"]}, r"validation must be Samples\(X, y=y\), but is of type dict"),
        (Y, Samples({"labs": X["labs"]}), "validation has no y"),
        (
            Y,
            Samples({"labs": X["labs"]}, y=np.where(Y, 1.0, np.nan)),
            "validation: Input y contains NaN",
        ),
        (
            Y,
            Samples({"labs": X["labs"]}, y=np.eye(2)[Y]),
            r"validation has y of shape \(96, 2\), but that of training is \(n,\)",
        ),
        (
            np.eye(2)[Y],
            Samples({"labs": X["labs"]}, y=Y),
            r"validation has y of shape \(96,\), but that of training is \(n, 2\)",
        ),
        (
            np.eye(2)[Y],
            Samples({"labs": X["labs"]}, y=np.eye(3)[Y]),
            r"validation has y of shape \(96, 3\), but that of training is \(n, 2\)",
        ),
    ],
)
def test_validation_of_another_form_is_refused_before_training(
    labels: Any, validation: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(head="joint", encoders=None).fit(
            {"labs": np.nan_to_num(X["labs"])}, labels, validation=validation
        )


def test_rows_are_copied_once_to_learn_from_and_again_only_if_some_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    take = TableColumn.take

    def counted(self: TableColumn, rows: Any) -> TableColumn:
        taken.append(len(rows))
        return take(self, rows)

    monkeypatch.setattr(TableColumn, "take", counted)
    labs, y = np.arange(8.0)[:, None], np.arange(8) % 2
    CM2Classifier(head="joint").fit({"labs": labs}, y)
    assert taken == [8]
    CM2Classifier(head="joint").fit({"labs": labs}, y, np.array([0.0, *[1.0] * 7]))
    assert taken == [8, 7, 7]


def test_samples_can_be_cross_validated_and_searched() -> None:
    model = classifier(head="fusion", n_networks=1, max_epochs=1)
    assert (cross_val_score(model, S, cv=2) >= 0).all()  # by the outcomes of the samples
    found = GridSearchCV(model, {"embedding_dim": [3, 4]}, cv=2).fit(S, Y).best_estimator_
    assert found.predict(S).shape == (ROWS,)
    assert found.score(S) == found.score(X, Y) == (found.predict(X) == Y).mean()


@pytest.mark.parametrize("network", sorted(set(models.REGISTRY) - {"cm2"}))
def test_rivals_go_the_same_road(network: str, tmp_path: Path) -> None:
    model = classifier(head="fusion", network=network, n_networks=1, max_epochs=1).fit(X, Y)
    proba = model.predict_proba(X)
    again = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    for drawn in (model.impute, model.predict_spread):
        with pytest.raises(ValueError, match=f"the network {network!r} imputes nothing"):
            drawn(X)


@pytest.mark.parametrize("network", ["m3care", "muse"])
def test_a_file_keeps_a_reference_or_none(network: str, tmp_path: Path) -> None:
    model = classifier(head="fusion", network=network, n_networks=1, max_epochs=1).fit(X, Y)
    (trained,) = model.head_.networks_
    proba = model.predict_proba(X)
    kept = model.save(tmp_path / "kept.cm2")
    assert persistence.facts(kept)["training_embeddings"] == trained.reference.rows > 0
    bare = model.save(tmp_path / "bare.cm2", reference=False)
    assert persistence.facts(bare)["training_embeddings"] == 0
    np.testing.assert_array_equal(model.predict_proba(X), proba)
    again = CM2Classifier.load(bare)
    assert again.head_.networks_[0].reference.rows == 0
    assert not again.head_.networks_[0].reference.z.any()
    trained.reference.clear()
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert np.abs(model.predict_proba(X) - proba).max() > 1e-6


def test_an_encoder_object_is_a_template(tmp_path: Path) -> None:
    template = Dense(3, 4, width=6)
    before = template.linear.weight.detach().clone()
    options = {"head": "fusion", "n_networks": 1, "max_epochs": 1}
    model = classifier(encoders=TINY | {"labs": template}, **options).fit(X, Y)
    assert torch.equal(template.linear.weight, before)
    again = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.encoders["labs"]["width"] == 6


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model and its tokenizer, whose words are not those of the notes."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    words = vocabulary.learn(["acute renal failure", "no fever"] * 5, np.arange(10))
    words.save(str(folder / "vocabulary.json"))
    size = words.get_vocab_size()
    Text(4, vocabulary=size, width=8, layers=1, heads=2, tokens=16).body.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def test_a_template_of_texts_is_read_as_its_section_is(published: Path) -> None:
    """With the tokenizer of its weights, and chunks no longer than it says."""
    notes = {"notes": X["notes"], "labs": np.nan_to_num(X["labs"])}
    tokenizer = {"tokenizer": str(published / "vocabulary.json")}
    readers = {
        name: Reader(options=reading({"notes": encoder})).fit(notes)
        for name, encoder in {
            "section": {"kind": "text", "weights": str(published), "tokens": 6},
            "learned": TINY["notes"],
        }.items()
    }
    for name, encoder in {
        "template": Text(4, weights=published, tokens=6),
        "own": TINY["notes"] | tokenizer | {"tokens": 6},
    }.items():
        model = classifier(head="fusion", n_networks=1, max_epochs=1, encoders={"notes": encoder})
        readers[name] = model.fit(notes, Y).reader_
    learned = {}
    for name, reader in readers.items():
        ids, _ = reader.blocks(notes).inputs["notes"].take(np.arange(ROWS))
        learned[name] = reader.learned_["notes"].vocabulary_, ids.shape, int(ids.sum())
    assert learned["template"] == learned["section"]
    assert learned["own"][1:] == learned["section"][1:]
    assert learned["section"][1][2] == 6
    assert learned["learned"] != learned["section"]


def test_networks_side_by_side_are_those_one_after_the_other() -> None:
    options = {"head": "fusion", "max_epochs": 1}
    alone = classifier(**options).fit(X, Y).predict_proba(X)
    both = classifier(**options, n_jobs=2).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(both, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "medfus"}, "did you mean 'medfuse'"),
        ({"device": "tpu"}, "device must be one of"),
        ({"encoders": {"cxr": {"kind": "image"}}}, "unknown modality 'cxr'"),
        ({"encoders": {"xray": {"kind": "imag"}}}, "did you mean 'image'"),
        ({"encoders": {"xrya": Dense(3, 4)}}, "unknown modality 'xrya'; did you mean 'xray'"),
        (
            {"encoders": {"xray": {"depths": [1]}}},
            "encoders.xray must be an Encoder or a section .*"
            "codes, dense, image, precomputed, series, text, transformer, vit; but is a section "
            "without kind",
        ),
        ({"encoders": {"xray": "image"}}, "encoders.xray must be .*; but is 'image'"),
        (
            {"encoders": {"notes": Text(4, width=8, layers=1, heads=2)}},
            "encoders.notes: it is not known of which tokenizer an Encoder object",
        ),
        ({"encoders": {"xray": {"kind": "series"}}}, "encoders.xray: 'series' does not read"),
        ({"encoders": {"xray": {"kind": "image", "wide": 3}}}, "encoders.xray: 'image' does not"),
    ],
)
def test_mistakes_are_named_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(X, Y)
