"""What each rival's paper calls its method, on small networks."""

from typing import Any

import pytest
import torch

from cm2.networks import models
from cm2.networks.models import Model, m3care, muse, smil
from cm2.networks.models.base import part_of
from cm2.networks.models.reference import Patients
from cm2.networks.tasks import Multiclass
from cm2.networks.training import train
from cm2.samples.batches import ArrayDataset
from small_clinical import clinical_batch, encoder

KINDS = ("dense", "precomputed", "codes")


def build(name: str, kinds: tuple[str, ...] = KINDS, dim: int = 8, **options: Any) -> Model:
    encoders = {kind: encoder(kind, dim) for kind in kinds}
    torch.manual_seed(1)
    return models.REGISTRY[name](encoders, 3, dropout=0.0, **options)


def test_missing_token_is_learned_where_its_modality_is_missing() -> None:
    model, batch = build("missing-token", depth=1, heads=2), clinical_batch(KINDS, 6)
    batch.present[:] = True
    batch.present[2, 1] = False
    before = model(batch).logits
    model(batch).logits.square().sum().backward()
    assert model.missing.grad.any(dim=1).tolist() == [False, True, False]
    with torch.no_grad():
        model.missing[1, 0] += 1.0  # a norm does not see what is added to all
    changed = (model(batch).logits - before).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [False, False, True, False, False, False]
    with pytest.raises(ValueError, match="depth must be at least 1, but is 0"):
        build("missing-token", depth=0)


def test_modality_dropout_hides_in_training_only() -> None:
    """As often as it says, never the last one, and as one that is missing."""
    model, batch = build("modality-dropout", rate=0.5), clinical_batch(KINDS, 400)
    batch.present[:] = True
    seen: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(batch)
    z = seen[0].view(400, 3, 8)
    hidden = (z == 0).all(dim=-1)
    assert not hidden.all(dim=1).any()
    wanted = 0.5 - 0.5**3 / 3  # one of those that would all be hidden stays
    assert abs(hidden.float().mean().item() - wanted) < 4 * (0.25 / 1200) ** 0.5
    whole = model.raw(batch)
    torch.testing.assert_close(z[~hidden], whole[~hidden])
    model.eval()
    logits = model(batch._replace(present=~hidden)).logits
    torch.testing.assert_close(logits, model.classifier(z.flatten(1)))
    with pytest.raises(ValueError, match=r"rate is a probability below one, but is 1\.0"):
        build("modality-dropout", rate=1.0)


def test_healnet_skips_what_is_missing() -> None:
    """As if the network had no such modality, but for one more reading of the latents."""
    model, batch = build("healnet", depth=2, latents=3, heads=2).eval(), clinical_batch(KINDS, 6)
    batch.present[:, 1] = False
    batch.present[:, 0] = True
    calls: list[int] = []
    for thinking in model.thinking:
        thinking.register_forward_hook(lambda *_: calls.append(1))
    logits = model(batch).logits
    assert len(calls) == 2 * 3
    logits.sum().backward()
    for layer in model.crossing:
        assert not any(p.grad.any() for p in layer[1].parameters() if p.grad is not None)
        assert all(p.grad.isfinite().all() for p in layer[0].parameters())
    with pytest.raises(ValueError, match="depth and latents must be at least 1"):
        build("healnet", latents=0)


READERS = ("m3care", "muse")
"""Rivals that read other patients."""


@pytest.mark.parametrize("name", READERS)
def test_a_reference_is_what_a_row_is_compared_with(name: str) -> None:
    """It is made of the first training rows, moves predictions, and can be forgotten."""
    model, batch = build(name, reference=10).eval(), clinical_batch(KINDS, 16)
    alone = model.predict(batch).mean
    model.refer(clinical_batch(KINDS, 30, seed=3))
    told = model.predict(batch).mean
    assert ((told - alone).abs().amax(dim=1) > 1e-6).any()
    other = clinical_batch(KINDS, 10, seed=3)
    assert torch.equal(model.reference.present, clinical_batch(KINDS, 30, seed=3).present[:10])
    model.refer(other)
    torch.testing.assert_close(model.reference.z, model.raw(other))
    model.refer(clinical_batch(KINDS, 4, seed=3))
    assert model.reference.present.any(dim=1).sum() == 4
    model.reference.clear()
    torch.testing.assert_close(model.predict(batch).mean, alone)
    with pytest.raises(ValueError, match="a reference has 1 to 512 rows, but reference is 513"):
        build(name, reference=513)


@pytest.mark.parametrize("name", READERS)
def test_training_leaves_a_reference_of_training_rows(name: str) -> None:
    """Embedded as the encoders of the best epoch do, and never more than there is place for."""
    batch = clinical_batch(KINDS[:2], 40)
    data = ArrayDataset(batch.inputs, batch.present, batch.target)
    model = build(name, KINDS[:2], reference=8)
    model = train(model, Multiclass(3), data, data, max_epochs=2, batch_size=16)
    z = model.raw(batch)
    for kept, there in zip(*model.reference(), strict=True):
        assert any(
            torch.equal(there, row) and torch.allclose(kept, mine, atol=1e-5)
            for row, mine in zip(batch.present, z, strict=True)
        )


def test_m3care_gathers_from_who_has_it() -> None:
    """From similar patients in proportion to similarity, never from one who lacks it."""
    model, batch = build("m3care", depth=1, heads=2), clinical_batch(KINDS, 20)
    rows = Patients(model.raw(batch), batch.present)
    graph = model.graph(rows, rows)
    assert not graph.diagonal(dim1=0, dim2=2).any()
    similar = model.similarity(rows, rows)
    torch.testing.assert_close(similar.diagonal(), torch.ones(20), rtol=1e-4, atol=1e-4)
    assert ((similar >= 0) & (similar <= 1.0001)).all()
    assert not similar[~(batch.present.float() @ batch.present.float().T).bool()].any()
    least = model.threshold.sigmoid()
    wanted = torch.where(similar > least, similar, 0.0) * ~torch.eye(20, dtype=torch.bool)
    for column in range(3):
        torch.testing.assert_close(graph[:, column], wanted * batch.present[:, column])
    values = torch.randn(20, 3, 8)
    told = m3care.mixed(graph, rows, values, values)
    row, column = (graph.sum(dim=-1) * ~batch.present).nonzero()[0].tolist()
    share = graph[row, column] / graph[row, column].sum()
    torch.testing.assert_close(told[row, column], share @ values[:, column])


def test_shaspec_takes_the_mean_of_what_is_shared_for_what_is_missing() -> None:
    model, batch = build("shaspec", rate=0.0).eval(), clinical_batch(KINDS, 6)
    shared, specific = torch.randn(6, 3, 8), torch.randn(6, 3, 8)
    present = torch.tensor([[True, False, True], [True, True, True], [False] * 3] * 2)
    fused = model.fuse(shared, specific, present)
    residual = torch.cat([shared, specific], dim=-1) @ model.compose.weight.T
    torch.testing.assert_close(fused[present], (shared + residual)[present])
    torch.testing.assert_close(fused[0, 1], (shared[0, 0] + shared[0, 2]) / 2)
    penalties = model(batch).penalties
    z = model.raw(batch)
    gaps, losses = [], []
    for row, there in zip(z, batch.present, strict=True):
        for i in there.nonzero().flatten().tolist():
            scores = model.domains(model.specific[i](row[i]))
            losses.append(-scores.log_softmax(0)[i])
            others = [j for j in there.nonzero().flatten().tolist() if j != i]
            gaps += [(model.shared(row[i]) - model.shared(row[j])).abs().mean() for j in others]
    torch.testing.assert_close(penalties["shared"], 0.1 * torch.stack(gaps).mean())
    torch.testing.assert_close(penalties["domain"], 0.02 * torch.stack(losses).mean())
    with pytest.raises(ValueError, match="rate is a probability below one"):
        build("shaspec", rate=-0.1)


def test_flex_moe_fills_by_combination_and_sends_tokens_to_few_experts() -> None:
    options = {"heads": 2, "experts": 5, "top": 2, "patches": 2}
    model, batch = build("flex-moe", **options), clinical_batch(KINDS, 4)
    batch.present[:] = torch.tensor([[True, True, True], [True, False, True], [False] * 3] * 2)[:4]
    output = model(batch)
    output.logits.square().sum().backward()
    read = {tuple(place) for place in model.bank.grad.any(dim=(2, 3)).nonzero().tolist()}
    assert read == {(5, 1), (0, 0), (0, 1), (0, 2)}
    experts = model.layers[0].experts
    x = torch.randn(40, 8)
    with torch.no_grad():
        experts.gate.normal_()
    for mode in (True, False):
        experts.train(mode)
        gates = experts.choose(x).gates
        assert ((gates > 0).sum(dim=1) == 2).all()
        torch.testing.assert_close(gates.sum(dim=1), torch.ones(40))
    code = torch.full((40,), 3)
    incomplete = torch.zeros(40, dtype=torch.bool)
    out, _ = experts(x, code, incomplete)
    mine = sum(gates[:, i : i + 1] * f(x) for i, f in enumerate(experts.experts))
    torch.testing.assert_close(out, mine)
    with torch.no_grad():  # a gate that chooses the expert of a row's combination has less to lose
        experts.gate.zero_()
        x[:, 0] = 1.0
        experts.gate[0, 1 + 3 % 4] = 9.0
        choice = experts.choose(x)
        lost = [experts.losses(choice, code + other, incomplete) for other in (0, 1)]
        assert lost[0] < lost[1] - 1.0
        assert experts.losses(choice, code, ~incomplete) > 1.0  # here one expert does it all
    with pytest.raises(ValueError, match="below the number of experts, but is 5 of 5"):
        build("flex-moe", **options | {"top": 5})
    with pytest.raises(ValueError, match="at most 12 modalities, but there are 13"):
        models.FlexMoE({str(i): encoder("dense") for i in range(13)}, 2)


def test_muse_drops_edges_of_every_second_patient_and_never_all() -> None:
    torch.manual_seed(0)
    present = torch.rand(6000, 4) < 0.7
    left = muse.dropped(present)
    count, kept = present.sum(dim=1), left.sum(dim=1)
    assert not (left & ~present).any()
    assert (kept[count > 0] > 0).all()
    assert (kept[count < 2] == count[count < 2]).all()
    several = count > 1
    share = (kept < count)[several].float().mean()
    assert abs(share - 0.5) < 4 * 0.5 / several.sum() ** 0.5
    of_four = kept[(count == 4) & (kept < 4)]
    for number in (1, 2, 3):
        assert abs((of_four == number).float().mean() - 1 / 3) < 4 * 0.48 / len(of_four) ** 0.5


def test_muse_keeps_both_views_alike() -> None:
    """Penalties are least where views agree, and where patients of one outcome do."""
    near, far = torch.eye(8)[:4], torch.eye(8)[[1, 2, 3, 0]]
    assert muse.agreement(near, near) < 0.01 < 1.0 < muse.agreement(near, far)
    target = torch.tensor([0, 0, 1, 1])
    together = torch.eye(8)[target]
    apart = torch.eye(8)[[0, 1, 0, 1]]
    assert muse.outcome(together, together, target) < muse.outcome(apart, apart, target)
    several = torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1]])
    same = muse.outcome(together, together, several)
    torch.testing.assert_close(same, muse.outcome(together, together, target))
    model, batch = build("muse"), clinical_batch(KINDS, 12)
    assert set(model(batch).penalties) == {"agreement", "outcome"}
    assert set(model(batch._replace(target=None)).penalties) == {"agreement"}
    assert model.eval()(batch).penalties == {}


def test_smil_sums_priors_that_start_at_clusters() -> None:
    model, batch = build("smil", priors=4, width=16), clinical_batch(KINDS, 60)
    model.initialize(batch)
    model.eval()
    z = model.raw(batch)
    known = torch.cat([z.flatten(1), batch.present.float()], dim=1)
    filled = model.reconstruct(known)
    for column in range(3):
        there = z[batch.present[:, column], column]
        priors = model.priors[column]
        near = torch.cdist(there, priors).amin(dim=1).mean()
        assert near < torch.cdist(there, there.mean(dim=0, keepdim=True)).mean()
        # A weighted mean of priors lies among them, in each coordinate.
        assert (filled[:, column] <= priors.amax(dim=0) + 1e-5).all()
        assert (filled[:, column] >= priors.amin(dim=0) - 1e-5).all()
    few = build("smil", priors=40)
    before = few.priors.clone()
    few.initialize(clinical_batch(KINDS, 10))
    assert torch.equal(few.priors, before)
    with pytest.raises(ValueError, match="priors and width must be at least 1, but are 0 and 64"):
        build("smil", priors=0)


def test_smil_differentiates_through_an_inner_step() -> None:
    """The penalty is the loss of the changed layers, and changes with the size of the step."""
    model, batch = build("smil", priors=4, width=16, alignment=0.5), clinical_batch(KINDS, 30)
    z, present, target = model.raw(batch).detach(), batch.present, batch.target
    logits = model.read(z, present, model.weights(), 0.0).logits
    incomplete, several = ~present.all(dim=1), present.sum(dim=1) > 1
    losses = []
    for size in (0.0, 0.2):
        model.inner = size
        torch.manual_seed(3)
        losses.append(model.meta_loss(z, present, logits, target))
        torch.manual_seed(3)
        left = part_of(present[several])
        loss = torch.nn.functional.cross_entropy(logits[incomplete], target[incomplete])
        steps = torch.autograd.grad(loss, model.weights(), retain_graph=True)
        pairs = zip(model.weights(), steps, strict=True)
        changed = smil.Weights(*(w - size * step for w, step in pairs))
        hidden = model.read(z[several], left, changed, 0.0)
        whole = model.read(z[several], present[several], changed, 0.0)
        wanted = torch.nn.functional.cross_entropy(hidden.logits, target[several])
        for one, other in zip(hidden[:2], whole[:2], strict=True):
            wanted = wanted + 0.5 * (one - other).square().mean()
        torch.testing.assert_close(losses[-1], wanted)
    assert not torch.allclose(*losses)
    assert "meta" in model(batch).penalties
    assert model(batch._replace(target=None)).penalties == {}
    assert model.eval()(batch).penalties == {}
    alone = batch._replace(present=present & (torch.arange(3) == 0))
    assert model.train()(alone).penalties["meta"] == 0.0


def test_umse_bottlenecks_skip_what_is_missing() -> None:
    """A row without the middle modality is read as by a network that does not have it."""
    options = {"depth": 3, "heads": 2, "bottlenecks": 2}
    model, batch = build("umse", **options).eval(), clinical_batch(KINDS, 5)
    batch.present[:] = torch.tensor([True, False, True])
    other = build("umse", (KINDS[0], KINDS[2]), **options).eval()
    kept = [0, 2]
    with torch.no_grad():
        for name in ("which", "tokens", "bottlenecks"):
            value = getattr(model, name)
            getattr(other, name).copy_(value if name == "bottlenecks" else value[kept])
    for mine, theirs in zip(other.layers, model.layers, strict=True):
        for place, column in enumerate(kept):
            mine[place].load_state_dict(theirs[column].state_dict())
    for place, column in enumerate(kept):
        other.before[place].load_state_dict(model.before[column].state_dict())
    other.time.load_state_dict(model.time.state_dict())
    other.classifier.load_state_dict(model.classifier.state_dict())
    inputs = {KINDS[i]: batch.inputs[KINDS[i]] for i in kept}
    less = batch._replace(inputs=inputs, present=batch.present[:, kept])
    torch.testing.assert_close(model(batch).logits, other(less).logits)
    everything = batch._replace(present=torch.ones_like(batch.present))
    assert ((model(everything).logits - model(batch).logits).abs().amax(dim=1) > 1e-5).all()
    with pytest.raises(ValueError, match="depth and bottlenecks must be at least 1"):
        build("umse", bottlenecks=0)
