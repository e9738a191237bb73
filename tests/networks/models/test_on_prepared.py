"""Prepared clinical data through encoders and models, and embeddings kept in an encoder's place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cm2.networks.encoders import Encoder, Precomputed, Series, Text, Transformer
from cm2.networks.models import CM2, LSMT, DrFuse, Interleaved, encode_present
from cm2.networks.tasks import Binary
from cm2.samples import embeddings
from prepared_batches import Prepared
from prepared_folder import make_folder
from small_clinical import encoder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "data")


def build(data: Prepared) -> dict[str, Encoder]:
    """Encoders whose sizes follow from the data."""
    torch.manual_seed(0)
    return {
        "series": Series(4, width=8, layers=1, **data.shape["series"]),
        "cxr": encoder("image"),
        "report": Text(4, width=8, layers=1, heads=2, tokens=16, **data.shape["report"]),
    }


@pytest.mark.parametrize("family", [CM2, DrFuse, LSMT, Interleaved])
def test_a_step_on_series_images_and_reports(root: Path, family: type) -> None:
    data = Prepared(root, modalities=["series", "cxr", "report"], tokens=16)
    model = family(build(data), 1)
    batch = data[range(12)]
    model.initialize(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        output = model(batch)
        loss = Binary().loss(output.logits, batch.target).mean() + sum(output.penalties.values())
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert model.predict(batch, 2).mean.isfinite().all()


def test_measurements_at_their_hours(root: Path) -> None:
    """The Transformer takes events as they come; their hours reach a model that reads steps."""
    data = Prepared(root, modalities=["events", "report"], tokens=16)
    torch.manual_seed(0)
    shape, options = data.shape, {"width": 8, "layers": 1, "heads": 2}
    encoders = {
        "events": Transformer(4, **options, **shape["events"]),
        "report": Text(4, tokens=16, **options, **shape["report"]),
    }
    model = Interleaved(encoders, 1, layers=1, heads=2, points=4, waves=4).eval()
    batch = data[range(12)]
    logits = model(batch).logits
    events, report = (steps.hours for steps in model.steps(batch))
    there = batch.inputs["events"].mask
    assert torch.equal(events[there], batch.inputs["events"].hour[there])
    assert torch.equal(report, batch.hours["report"])
    x = batch.inputs["events"]
    moved = model(batch._replace(inputs={**batch.inputs, "events": x._replace(hour=x.hour / 2)}))
    assert (moved.logits - logits).abs().max() > 1e-5


def test_precomputed_embeddings_stand_in_for_an_encoder(root: Path) -> None:
    data = Prepared(root, modalities=["series", "report"], tokens=16, split=None)
    text = build(Prepared(root, modalities=["series", "cxr", "report"], tokens=16))["report"]
    there = data.present[:, 1]
    with torch.no_grad():
        inputs = data[range(len(data))].inputs
        z = encode_present({"report": text.eval()}, inputs, there[:, None])[:, 0]
    ids = data.stays["stay_id"].to_numpy(np.int64)
    embeddings.save(root, "report", ids[there.numpy()], z[there].numpy(), {"encoder": "text"})
    kept = Prepared(root, modalities=["series", "report"], split=None, embedded=["report"])
    given = kept[range(len(kept))].inputs["report"]
    scale = kept.reader.learned_["report"].scaler_
    wanted = scale.transform(z[there].numpy()).astype(np.float32)
    np.testing.assert_allclose(given[there], wanted, rtol=1e-5, atol=1e-5)
    assert Precomputed(dim=4, **kept.shape["report"])(given[there]).shape == (int(there.sum()), 4)
