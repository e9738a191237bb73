"""Laws of every registered model, on tables and on tiny series, images and documents."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cm2.core.records import Batch
from cm2.networks import models
from cm2.networks.learner import Learner
from cm2.networks.models import Model
from cm2.networks.models.drfuse import POOLED, DrFuse
from cm2.networks.tasks import Binary, Multiclass
from laws import FLOAT32
from small_clinical import CLINICAL, check_absent_rows, clinical_batch, encoder, rows_of

OPTIONS: dict[str, dict[str, Any]] = {
    "cm2": {"imputation": "mean", "components": 2, "width": 8, "hide": 0.0},
    "daft": {"bottleneck": 16},
    "drfuse": {},
    "flex-moe": {"depth": 2, "heads": 2, "experts": 4, "top": 2, "patches": 3},
    "healnet": {"depth": 1, "latents": 3, "heads": 2},
    "interleaved": {"layers": 1, "heads": 2, "points": 4, "waves": 8},
    "late": {},
    "lsmt": {"depth": 1, "heads": 2, "latents": 3, "readings": 1},
    "m3care": {"depth": 1, "heads": 2, "reference": 12},
    "medfuse": {"width": 16},
    "missing-token": {"depth": 1, "heads": 2},
    "mmtm": {},
    "modality-dropout": {"rate": 0.0},
    "muse": {"reference": 12, "agreement": 0.1, "outcome": 0.1},
    "shaspec": {"rate": 0.0},
    "smil": {"priors": 3, "width": 16},
    "umse": {"depth": 2, "heads": 2, "bottlenecks": 2},
    "unified": {},
    "unimodal": {},
}
TABLES = ("dense", "precomputed", "dense")
NAMES = sorted(models.REGISTRY)
names = pytest.mark.parametrize("name", NAMES)


def build(name: str, kinds: tuple[str, ...], labels: int = 3, dim: int = 8) -> Model:
    """A model with tiny encoders and without dropout, that has met some training rows."""
    encoders = {kind: encoder(kind, dim) for kind in kinds}
    torch.manual_seed(1)
    model = models.REGISTRY[name](encoders, labels, dropout=0.0, **OPTIONS[name])
    model.refer(clinical_batch(kinds, 12, seed=7))
    return model


def total(model: Model, batch: Batch) -> Tensor:
    """The training loss with all weights one."""
    task = Multiclass(model.labels) if model.labels > 1 else Binary()
    output = model(batch)
    loss = task.loss(output.logits, batch.target).mean()
    for logits in output.logits_by_modality.values():
        loss = loss + task.loss(logits, batch.target).mean()
    return loss + sum(output.penalties.values())


def take(batch: Batch, index: Any) -> Batch:
    return Batch(
        {name: rows_of(x, index) for name, x in batch.inputs.items()},
        batch.present[index],
        batch.target[index],
    )


def test_every_model_has_options() -> None:
    assert set(OPTIONS) == set(models.REGISTRY)


@names
@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 6])
def test_any_number_of_modalities_and_rows(name: str, modalities: int, rows: int) -> None:
    kinds = CLINICAL[:modalities]
    model, batch = build(name, kinds), clinical_batch(kinds, rows)
    output = model(batch)
    assert output.logits.shape == (rows, 3)
    assert all(logits.shape == (rows, 3) for logits in output.logits_by_modality.values())
    assert all(value.dim() == 0 for value in output.penalties.values())
    loss = total(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    mean = model.predict(batch, 2).mean
    torch.testing.assert_close(mean.sum(-1), torch.ones(rows))
    assert model.broken_terms(batch) == []


@names
def test_whatever_stands_in_an_absent_row_changes_nothing(name: str) -> None:
    check_absent_rows(lambda: build(name, CLINICAL), total)


@names
def test_permuting_rows_permutes_outputs(name: str) -> None:
    """And a row's logits do not depend on its neighbours."""
    model, batch = build(name, CLINICAL).eval(), clinical_batch(CLINICAL)
    order = torch.randperm(8)
    logits = model(batch).logits
    torch.testing.assert_close(
        model(take(batch, order)).logits, logits[order], rtol=1e-3, atol=1e-4
    )
    alone = model(take(batch, slice(1, 2))).logits
    torch.testing.assert_close(alone, logits[1:2], rtol=1e-3, atol=1e-4)


@names
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    model, batch = build(name, CLINICAL), clinical_batch(CLINICAL, 40)
    model.initialize(batch)
    total(model, batch).backward()
    dead = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # A vector that says "imputed" is read where its modality is absent only.
    assert dead <= ({"fusion.imputed"} if bool(batch.present.all()) else set())


@names
def test_overfits_eight_rows(name: str) -> None:
    kinds = ("dense", "precomputed")
    model = build(name, kinds)
    batch = clinical_batch(kinds, 8, seed=4)
    if name in ("unimodal", "daft"):  # they see little without their one modality
        batch.present[:, 0] = True
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    for _ in range(60):
        optimizer.zero_grad()
        total(model, batch).backward()
        optimizer.step()
    model.refer(batch)
    right = model.predict(batch).mean.gather(1, batch.target[:, None])
    assert right.min() > 0.7


@names
def test_same_seed_same_result(name: str) -> None:
    batch = clinical_batch(CLINICAL)
    results = []
    for _ in range(2):
        model = build(name, CLINICAL)
        torch.manual_seed(7)
        results.append((total(model, batch).detach(), model.predict(batch, 2).mean))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@names
def test_a_row_with_nothing_observed(name: str) -> None:
    """It gets probabilities that no input moves, and every row of the batch may be one."""
    model, batch = build(name, CLINICAL), clinical_batch(CLINICAL)
    batch.present[4] = False
    total(model, batch).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    other = clinical_batch(CLINICAL, seed=9)
    other.present[4] = False
    left, right = model.predict(batch).mean[4], model.predict(other).mean[4]
    torch.testing.assert_close(left, right)
    nothing = batch._replace(present=torch.zeros_like(batch.present))
    torch.testing.assert_close(model.predict(nothing).mean, left.expand(8, -1))


@names
def test_a_modality_absent_for_all_rows(name: str) -> None:
    for column in range(3):
        model, batch = build(name, CLINICAL), clinical_batch(CLINICAL)
        batch.present[:, column] = False
        loss = total(model, batch)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert model.predict(batch).mean.isfinite().all()


@names
def test_present_modalities_change_the_logits(name: str) -> None:
    kinds = CLINICAL[::2]
    model, batch = build(name, kinds).eval(), clinical_batch(kinds, 12)
    logits = model(batch).logits
    other = clinical_batch(kinds, 12, seed=5).inputs
    for column, kind in enumerate(kinds):
        moved = model(batch._replace(inputs={**batch.inputs, kind: other[kind]})).logits
        change = (moved - logits).abs().amax(dim=-1) > 1e-6
        if name == "unimodal" and column > 0:
            assert not change.any()
        else:
            assert change[batch.present[:, column]].all()
        if name != "cm2":  # which imputes what is absent from what is there
            assert not change[~batch.present[:, column]].any()


@names
def test_one_logit(name: str) -> None:
    model, batch = build(name, ("dense", "codes"), labels=1), clinical_batch(("dense", "codes"))
    batch = batch._replace(target=(batch.target > 0).long())
    total(model, batch).backward()
    assert model.predict(batch).mean.shape == (8, 1)


@names
def test_bfloat16(name: str) -> None:
    """Training under autocast: finite, and near what single precision gives."""
    batch = clinical_batch(CLINICAL)
    results = []
    for enabled in (False, True):
        model = build(name, CLINICAL)
        model.initialize(batch)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = total(model, batch)
            mean = model.eval().predict(batch).mean
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        results.append((loss.detach().float(), mean.float()))
    torch.testing.assert_close(*(loss for loss, _ in results), rtol=0.05, atol=0.05)
    torch.testing.assert_close(*(mean for _, mean in results), rtol=0.1, atol=0.03)


def test_the_joint_is_in_single_precision_under_autocast() -> None:
    """Given the same embeddings, density, imputation and penalties are those without autocast."""
    kinds = ("dense", "precomputed")
    batch = clinical_batch(kinds, 20)
    model = build("cm2", kinds)
    model.initialize(batch)
    z = model.embed(batch).detach()
    encoded = model.encode(batch)
    expected = model.impute(z, batch.present)
    model.raw = lambda _: z  # type: ignore[method-assign]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        completed = model.complete(batch)[0]
        penalties = model(batch).penalties
    assert torch.equal(completed, expected)
    assert all(value.dtype == torch.float32 for value in penalties.values())
    weight = torch.full((20,), 1 / 20)
    plain = model.objective.penalties(model.joint, encoded, batch.present, weight)
    assert torch.equal(penalties["joint_nll"], plain["joint_nll"])


def test_the_joint_starts_where_training_will_find_embeddings() -> None:
    """A batch norm without data behind it embeds differently; looking for faults moves nothing."""
    model, batch = build("cm2", ("image", "dense")), clinical_batch(("image", "dense"), 150)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert model.broken_terms(batch) == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    model.initialize(batch)
    with torch.no_grad():
        z, present = model.raw(batch), batch.present
        found = model.joint().log_prob_terms(z, present)["marginal"][:, 0]
        own = build("cm2", ("image", "dense")).joint
        own.initialize(z, present)
        best = own().log_prob_terms(z, present)["marginal"][:, 0]
        naive = build("cm2", ("image", "dense"))
        naive.initialize_joint(batch)
        worst = naive.joint().log_prob_terms(z, present)["marginal"][:, 0]
    assert best.mean() - found.mean() < 0.5 * (best.mean() - worst.mean())


def test_pieces_are_the_whole() -> None:
    model, batch = build("cm2", CLINICAL).eval(), clinical_batch(CLINICAL, 70)
    whole = model.embed(batch)
    torch.testing.assert_close(model.embed_in_pieces(batch), whole, **FLOAT32)


def test_unimodal_is_late_fusion_of_one() -> None:
    batch = clinical_batch(("dense",))
    one, late = build("unimodal", ("dense",)).eval(), build("late", ("dense",)).eval()
    state = {k.replace("classifier.1", "classifiers.0"): v for k, v in one.state_dict().items()}
    del state["column"]
    late.load_state_dict(state)
    torch.testing.assert_close(one(batch).logits, late(batch).logits)
    again = build("unimodal", ("dense",))
    again.load_state_dict({k: v for k, v in one.state_dict().items() if k != "column"})
    torch.testing.assert_close(again.eval()(batch).logits, one(batch).logits)


def test_medfuse_reads_what_is_there() -> None:
    """A row that lacks the middle modality is read as a sequence of the other two."""
    kinds = ("dense", "precomputed", "codes")
    model, batch = build("medfuse", kinds).eval(), clinical_batch(kinds, 3)
    batch.present[:] = torch.tensor([True, False, True])
    z = model.raw(batch)
    steps = torch.stack([z[:, 0], model.projections[1](z[:, 2])], dim=1)
    state = model.recurrent(steps)[0][:, -1]
    torch.testing.assert_close(model(batch).logits, model.classifier(state))


def test_medfuse_reads_a_learned_vector_for_what_is_missing() -> None:
    """Of the modality's own, and a complete row is read as without any."""
    kinds = ("dense", "precomputed", "codes")
    encoders = {kind: encoder(kind, 8) for kind in kinds}
    model = models.MedFuse(encoders, 3, width=16, missing="learned", dropout=0.0).eval()
    batch = clinical_batch(kinds, 3)
    batch.present[:] = torch.tensor([[True, False, True], [True, True, True], [False] * 3])
    z = model.raw(batch)
    steps = [z[:, 0], *(f(z[:, i]) for i, f in enumerate(model.projections, start=1))]
    for row, column in ((0, 1), (2, 0), (2, 1), (2, 2)):
        steps[column] = steps[column].clone()
        steps[column][row] = model.filler[column]
    state = model.recurrent(torch.stack(steps, dim=1))[0][:, -1]
    logits = model(batch).logits
    torch.testing.assert_close(logits, model.classifier(state))
    logits.square().sum().backward()
    assert model.filler.grad.any(dim=1).all()
    plain = models.MedFuse(encoders, 3, width=16, dropout=0.0).eval()
    state = {name: value for name, value in model.state_dict().items() if name != "filler"}
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(batch).logits[1], logits[1])
    with pytest.raises(ValueError, match="missing must be one of"):
        models.MedFuse(encoders, 3, missing="zero")


def test_drfuse_pools_and_penalises_as_in_its_source() -> None:
    """The two-modality formulas of the published code, in its own form."""
    model = build("drfuse", ("dense", "precomputed"))
    shared, distinct = torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    pairs = torch.tensor([True, True, False, True, False])
    present = torch.stack([torch.ones(5, dtype=torch.bool), pairs], dim=1)
    found = model.penalties(shared, distinct, present)
    p, q = shared.sigmoid().unbind(dim=1)
    middle = (p + q) / 2
    jsd = 0.5 * (p * (p / middle).log() + q * (q / middle).log()).sum(dim=-1)
    torch.testing.assert_close(found["shared"], (jsd * pairs).sum() / pairs.sum())
    cosine = torch.cosine_similarity(shared, distinct, dim=-1).abs()
    torch.testing.assert_close(found["distinct"], cosine[present].mean())
    assert isinstance(model, DrFuse)


def test_drfuse_ranks_attention_as_in_its_source() -> None:
    """The three terms of the published training, for pairs only; classes share a row's loss."""
    kinds = ("dense", "precomputed")
    model, batch = build("drfuse", kinds), clinical_batch(kinds, 20)
    batch.present[:, 0] = True
    model.exclusive.fill_(False)
    target = torch.randint(2, (20, 3), generator=torch.Generator().manual_seed(1)).float()
    attention: list[Tensor] = []
    attend = model.attend

    def spy(*given: Tensor) -> Any:
        attention.append(attend(*given)[1])
        return attend(*given)

    model.attend = spy  # type: ignore[method-assign]
    output = model(batch._replace(target=target))
    first, second, shared = attention[0].unbind(dim=1)
    one, other, pooled = (
        torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        for logits in output.logits_by_modality.values()
    )
    pairs = batch.present.all(dim=1, keepdim=True)
    expected = []
    for left, right, of_left, of_right in (
        (second, first, other, one),
        (shared, first, pooled, one),
        (shared, second, pooled, other),
    ):
        sign = 2 * (of_left < of_right).float() - 1
        term = pairs * torch.nn.functional.margin_ranking_loss(left, right, sign, reduction="none")
        expected.append(term.sum() / max(1, int((term > 0).sum())))
    torch.testing.assert_close(output.penalties["ranking"], sum(expected) / 3)
    assert output.penalties["ranking"] > 0
    assert "ranking" not in model(batch._replace(target=None)).penalties
    half = models.DrFuse({kind: encoder(kind, 8) for kind in kinds}, 3, ranking=0.5, dropout=0.0)
    half.load_state_dict(model.state_dict())
    found = half(batch._replace(target=target)).penalties["ranking"]
    torch.testing.assert_close(2 * found, output.penalties["ranking"])


def test_a_part_that_modalities_share_is_learned_where_any_is_there() -> None:
    kinds = ("dense", "precomputed")
    model, batch = build("drfuse", kinds), clinical_batch(kinds, 6)
    batch.present[5] = False
    task = Multiclass(3)
    output = model(batch)
    weights = [*batch.present.T, batch.present.any(dim=1)]
    assert list(output.logits_by_modality) == [*kinds, POOLED]
    expected = [
        task.loss(logits, batch.target)[there].mean()
        for logits, there in zip(output.logits_by_modality.values(), weights, strict=True)
    ]
    found = Learner(model, task).auxiliary(output, batch, batch.target)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    with pytest.raises(ValueError, match="DrFuse calls what modalities share 'shared part'"):
        models.DrFuse({POOLED: encoder("dense")}, 2)


def test_mistakes_are_named() -> None:
    encoders = {"a": encoder("dense", 4), "b": encoder("codes", 5)}
    for name in NAMES:
        if name != "unimodal":
            with pytest.raises(ValueError, match="all encoders need the same dim"):
                models.REGISTRY[name](encoders, 2)
        with pytest.raises(ValueError, match="labels is 0"):
            models.REGISTRY[name]({"a": encoder("dense")}, 0)
    with pytest.raises(ValueError, match="there is no modality 'c'"):
        models.Unimodal(encoders, 2, modality="c")
    with pytest.raises(ValueError, match="ratio must be positive"):
        models.MMTM({"a": encoder("dense")}, 2, ratio=0.0)
    with pytest.raises(ValueError, match="bottleneck must be at least 1"):
        models.DAFT({"a": encoder("dense")}, 2, bottleneck=0)
    with pytest.raises(ValueError, match="a column for each of"):
        build("late", ("dense",))(clinical_batch(("dense", "codes")))
