"""Laws of a model, and the traps of the design that live in the network."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from cm2.core.records import Batch
from cm2.networks import imputers
from cm2.networks.models import CM2, objectives
from cm2.networks.models.base import pieces
from cm2.networks.models.diagnostics import uniformity
from cm2.networks.tasks import Multiclass
from small_networks import FEATURES, Identity, correlated, network, sample, take, without

VARIANTS: list[dict[str, Any]] = [
    {},
    {"copula": "gumbel", "fusion": "concat"},
    {"copula": "frank", "imputation": "marginal", "shared": True},
    {"imputation": "mean", "copula": "independence"},
    {"imputation": "zero"},
    {"posterior": "gaussian"},
    {"posterior": "gaussian", "objective": "elbo", "imputation": "conditional"},
    {"coupling": "shared-components", "copula": "gumbel"},
    {"coupling": "multivariate-cdf", "imputation": "marginal"},
    {"copula": "factor", "rank": 2, "coupling": "shared-components"},
    {"copula": "factor", "rank": 2, "imputation": "conditional-mean"},
    {
        "objective": "likelihood", "mixing": "network", "imputation": "marginal", "through": True,
        "normalize": True, "classifier": "linear", "auxiliary": False, "fusion": "beside",
    },
]  # fmt: skip
variants = pytest.mark.parametrize("options", VARIANTS, ids=str)


def total(model: CM2, batch: Batch) -> Tensor:
    """The training loss with all weights one."""
    output = model(batch)
    loss = Multiclass(model.labels).loss(output.logits, batch.target).mean()
    for logits in output.logits_by_modality.values():
        loss = loss + Multiclass(model.labels).loss(logits, batch.target).mean()
    return loss + sum(output.penalties.values())


@variants
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, 1e30])
def test_whatever_stands_in_an_absent_row_changes_nothing(
    options: dict[str, Any], junk: float
) -> None:
    model, batch = network(**options), sample()
    dirty = {
        name: torch.where(batch.present[:, [column]], values, junk)
        for column, (name, values) in enumerate(batch.inputs.items())
    }
    results = []
    for inputs in (batch.inputs, dirty):
        fresh = copy.deepcopy(model)  # a step remembers moments
        torch.manual_seed(0)
        loss = total(fresh, batch._replace(inputs=inputs))
        loss.backward()
        grads = [p.grad for p in fresh.parameters() if p.grad is not None]
        results.append((loss.detach(), grads))
    assert torch.equal(results[0][0], results[1][0])
    for clean, other in zip(results[0][1], results[1][1], strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, other)


@variants
@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 7])
def test_any_number_of_modalities_and_rows(
    options: dict[str, Any], modalities: int, rows: int
) -> None:
    model, batch = network(modalities, **options), sample(rows, modalities)
    loss = total(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    mean, spread = model.predict(batch, 3)
    torch.testing.assert_close(mean.sum(-1), torch.ones(rows))
    assert (spread >= 0).all()


@variants
def test_a_modality_absent_for_all_rows(options: dict[str, Any]) -> None:
    model = network(**options)
    for column in range(3):
        batch = without(sample(), column)
        model.zero_grad()
        loss = total(model, batch)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert model.predict(batch).mean.isfinite().all()


@variants
def test_a_row_with_nothing_observed(options: dict[str, Any]) -> None:
    model, batch = network(**options), sample()
    batch.present[4] = False
    loss = total(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.predict(batch).mean.isfinite().all()


@variants
def test_permuting_rows_permutes_outputs(options: dict[str, Any]) -> None:
    model, batch = network(**options).eval(), sample()
    order = torch.randperm(12)
    torch.testing.assert_close(model.embed(batch)[order], model.embed(take(batch, order)))
    full = batch._replace(present=torch.ones_like(batch.present))
    torch.testing.assert_close(model(full).logits[order], model(take(full, order)).logits)


@variants
def test_trap_neighbours_change_neither_density_nor_logits(options: dict[str, Any]) -> None:
    model, batch = network(**options).eval(), sample()
    other = sample(seed=5)
    z = model.embed(batch)
    log_prob = model.joint().log_prob(z, batch.present)
    for row in range(3):
        alone = take(batch, [row])
        mixed = Batch(
            {k: torch.cat([v, 50 * other.inputs[k]]) for k, v in alone.inputs.items()},
            torch.cat([alone.present, other.present]),
        )
        for company in (alone, mixed):
            there = model.embed(company)[:1]
            found = model.joint().log_prob(there, company.present[:1])
            torch.testing.assert_close(found, log_prob[row : row + 1], rtol=1e-4, atol=1e-4)
    complete = take(batch, [0])  # the first row of a sample has all modalities
    mixed = Batch(
        {k: torch.cat([v, 50 * other.inputs[k]]) for k, v in complete.inputs.items()},
        torch.cat([complete.present, other.present]),
    )
    torch.testing.assert_close(model(complete).logits, model(mixed).logits[:1])


@variants
def test_a_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    model, batch = network(**options), sample(40)
    model.initialize_joint(batch)
    total(model, batch).backward()
    without_gradient = {
        name
        for name, value in model.named_parameters()
        if value.grad is None or not (value.grad != 0).any()
    }
    allowed = {"posterior.spread", "posterior.log_scale"} if model.posterior.training else set()
    assert without_gradient <= (allowed if options.get("imputation") == "zero" else set())


@pytest.mark.parametrize("imputation", list(imputers.REGISTRY))
@pytest.mark.parametrize("objective", list(objectives.REGISTRY))
def test_nothing_is_made_on_another_device_than_the_data(imputation: str, objective: str) -> None:
    """Whatever were made on torch's default device would meet the data and fail."""
    posterior = "gaussian" if objective == "elbo" else "point"
    options = {"objective": objective, "posterior": posterior, "imputation": imputation}
    model, batch = network(copula="independence", **options), sample(40)
    with torch.device("meta"):
        loss = total(model, batch)
        loss.backward()
        mean = model.predict(batch, 2).mean
    assert loss.isfinite()
    assert mean.isfinite().all()


@pytest.mark.parametrize("coupling", ["rosenblatt", "shared-components"])
@pytest.mark.parametrize("objective", list(objectives.REGISTRY))
def test_a_factor_copula_trains_with_every_objective_and_imputer(
    coupling: str, objective: str
) -> None:
    posterior = "gaussian" if objective == "elbo" else "point"
    options = {"objective": objective, "posterior": posterior, "coupling": coupling}
    batch = sample(40)
    for imputation in imputers.REGISTRY:
        model = network(copula="factor", rank=3, imputation=imputation, **options)
        model.initialize(batch)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        before = model.joint.copula().loading.clone()
        for _ in range(2):
            optimizer.zero_grad()
            loss = total(model, batch)
            loss.backward()
            optimizer.step()
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert not torch.equal(model.joint.copula().loading, before)
        assert all(math.isfinite(value) for value in model.diagnostics(batch).values())


def on_gpu(batch: Batch) -> Batch:
    moved: Batch = tree_map(lambda part: part.cuda() if torch.is_tensor(part) else part, batch)
    return moved


@pytest.mark.gpu
@variants
def test_a_step_on_a_gpu(options: dict[str, Any]) -> None:
    model, batch = network(**options).cuda(), on_gpu(sample(40))
    model.initialize(batch)
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-3, 1e-2), fused=True)
    loss = total(model, batch)
    loss.backward()
    optimizer.step()
    assert all(value.is_cuda and value.isfinite().all() for value in model.state_dict().values())
    assert model.predict(batch, 2).mean.isfinite().all()
    assert all(math.isfinite(value) for value in model.diagnostics(batch).values())


@pytest.mark.parametrize("fusion", ["lstm", "concat"])
def test_overfits_eight_rows(fusion: str) -> None:
    model = network(width=32, fusion=fusion, hide=0.0, components=1)
    batch = sample(8, seed=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(120):
        optimizer.zero_grad()
        total(model, batch).backward()
        optimizer.step()
    predicted = model.predict(batch).mean
    assert predicted.gather(1, batch.target[:, None]).min() > 0.8


@variants
def test_same_seed_same_result(options: dict[str, Any]) -> None:
    batch = sample()
    results = []
    for _ in range(2):
        model = network(**options)
        torch.manual_seed(7)
        results.append((total(model, batch).detach(), model.predict(batch, 3).mean))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("fusion", ["lstm", "concat"])
def test_trap_any_present_input_changes_the_logits(fusion: str) -> None:
    model, batch = network(fusion=fusion).eval(), sample(30)
    torch.manual_seed(0)
    logits = model(batch).logits
    for column, name in enumerate(model.modalities):
        moved = dict(batch.inputs)
        moved[name] = moved[name] + 1.0
        torch.manual_seed(0)
        change = (model(batch._replace(inputs=moved)).logits - logits).abs().amax(-1)
        assert (change[batch.present[:, column]] > 1e-6).all()


@pytest.mark.parametrize("fusion", ["lstm", "concat"])
def test_trap_any_imputed_embedding_changes_the_logits(fusion: str) -> None:
    class Constant(imputers.Imputer):
        """Imputes a number."""

        value = 0.0

        def values(self, z: Tensor, present: Tensor, joint: Any, base: Any = None) -> Tensor:
            return torch.full_like(z, self.value)

    class Moved(imputers.Imputer):
        """Imputes zeros but for one modality."""

        column = 0

        def values(self, z: Tensor, present: Tensor, joint: Any, base: Any = None) -> Tensor:
            values = torch.zeros_like(z)
            values[:, self.column] = 1.0
            return values

    moved = Moved()
    model, batch = network(fusion=fusion, imputation=Constant()).eval(), sample(30)
    base = model(batch).logits
    model.imputer = moved
    for column in range(3):
        moved.column = column
        change = (model(batch).logits - base).abs().amax(-1)
        absent = ~batch.present[:, column]
        assert (change[absent] > 1e-6).all()
        assert (change[~absent] == 0).all()


def test_hiding_keeps_at_least_one_and_adds_none() -> None:
    model = network(4, hide=0.5)
    present = torch.rand(4000, 4) < 0.7
    shown = model.hidden(present)
    assert not (shown & ~present).any()
    assert torch.equal(shown.any(-1), present.any(-1))
    full = model.hidden(torch.ones(4000, 4).bool())
    assert abs(float(full.float().mean()) - (0.5 + 0.5**4 / 4)) < 0.02
    assert torch.equal(network(4, hide=0.0).hidden(present), present)


def test_likelihood_sees_what_is_there_before_hiding_and_nothing_imputed() -> None:
    model, batch = network(hide=0.9), sample(30)
    expected = model.joint().log_prob(model.embed(batch), batch.present)
    for _ in range(3):
        penalty = model(batch).penalties["joint_nll"]
        torch.testing.assert_close(penalty, -expected.mean() / (3 * model.dim))


def test_encoders_learn_nothing_from_the_marginals() -> None:
    """joint_nll moves the joint only, alignment the encoders only."""
    model, batch = network(), sample(40)
    model.initialize_joint(batch)
    encoders = list(model._encoders.parameters())
    joint = list(model.joint.parameters())
    penalties = model(batch).penalties
    found = torch.autograd.grad(
        penalties["joint_nll"], encoders + joint, allow_unused=True, retain_graph=True
    )
    assert all(g is None for g in found[: len(encoders)])
    assert all(g is not None for g in found[len(encoders) :])
    with torch.no_grad():  # away from independence, where log c is zero everywhere
        for value in model.joint.copula.parameters():
            value.add_(0.5)
    alignment = model(batch).penalties["alignment"]
    found = torch.autograd.grad(alignment, encoders + joint, allow_unused=True)
    assert any(g is not None and (g != 0).any() for g in found[: len(encoders)])
    assert all(g is None for g in found[len(encoders) :])


def aligned(model: CM2, z: Tensor, batch: Batch) -> Tensor:
    """The alignment of embeddings that are given."""
    weight = torch.full((len(z),), 1 / len(z))
    encoded = model.encode(batch)._replace(z=z)
    return model.objective.penalties(model.joint, encoded, batch.present, weight)["alignment"]


def dependent(rows: int = 60) -> tuple[CM2, Batch, Tensor]:
    """A model whose copula is not independence, a batch, and its embeddings."""
    model, batch = network(), sample(rows)
    model.initialize_joint(batch)
    with torch.no_grad():
        for value in model.joint.copula.parameters():
            value.add_(0.5)
        return model, batch, model.embed(batch)


def test_alignment_is_the_copula_term_at_the_moments_of_the_marginals() -> None:
    """The joint has just been started from this batch, so that its moments are the batch's."""
    model, batch, z = dependent()
    copula = model.joint().log_prob_terms(z, batch.present)["copula"]
    found = aligned(model, z.requires_grad_(), batch)
    # EM stops where means and deviations have settled to about a thousandth.
    torch.testing.assert_close(found, -copula.mean() / z[0].numel(), rtol=0.02, atol=1e-3)


def test_alignment_cannot_be_won_by_moving_or_scaling() -> None:
    """Not into a tail that the marginals, which lag behind, still call far away."""
    model, batch, z = dependent(2000)
    moved = (z + 40.0) * torch.tensor([0.1, 1.0, 30.0]).reshape(1, 3, 1)
    values = []
    for start in (z, moved):
        for part in model.objective.matching.children():
            part.reset()
        values.append(aligned(model, start.clone().requires_grad_(), batch))
    torch.testing.assert_close(values[0], values[1], rtol=1e-3, atol=1e-5)
    for part in model.objective.matching.children():
        part.reset()
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aligned(model, leaf, batch), leaf)
    there = batch.present.unsqueeze(-1).to(z)
    # Of these sums and those of sizes, as each row's own part is left out of its moments.
    size = (there * gradient).abs().sum(0).norm()
    assert size > 0
    assert (there * gradient).sum(0).norm() < 1e-3 * size
    center = (there * z).sum(0) / there.sum(0)
    assert (there * gradient * (z - center)).sum(0).norm() < 5e-3 * size * z.std()


def test_alignment_of_a_modality_whose_only_row_it_is_has_no_gradient() -> None:
    model, batch, z = dependent(6)
    for part in model.objective.matching.children():
        part.reset()
    present = torch.tensor([[True, True, False]] * 5 + [[True, True, True]])
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aligned(model, leaf, batch._replace(present=present)), leaf)
    assert gradient.isfinite().all()
    assert (gradient[:, 2] == 0).all()
    assert (gradient[:, :2] != 0).any()


def test_alignment_goes_on_after_loading_as_if_nothing_had_happened() -> None:
    """The moments of earlier batches are part of the state."""
    model, batch, z = dependent()
    loaded = network()
    loaded.load_state_dict(model.state_dict())
    later = (2 * z + 1).requires_grad_()
    for _ in range(2):
        values = [aligned(each, later, batch) for each in (model, loaded)]
        gradients = [torch.autograd.grad(value, later)[0] for value in values]
        assert torch.equal(*values)
        assert torch.equal(*gradients)


def test_initialisation_finds_two_modes() -> None:
    """Equal components would get equal gradients for ever."""
    model = CM2({"a": Identity(1), "b": Identity(1)}, 2, components=2)
    sign = torch.where(torch.rand(400, 1) < 0.5, -3.0, 3.0)
    inputs = {"a": sign + 0.3 * torch.randn(400, 1), "b": torch.randn(400, 1)}
    model.initialize_joint(Batch(inputs, torch.ones(400, 2).bool()))
    loc = model.joint().marginals.loc[0].squeeze().sort().values
    torch.testing.assert_close(loc, torch.tensor([-3.0, 3.0]), atol=0.2, rtol=0)


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_initialisation_copes_with_modalities_that_hardly_occur(rows: int) -> None:
    model, batch = network(components=3), without(sample(rows), 1)
    model.initialize_joint(batch)
    assert all(value.isfinite().all() for value in model.joint.parameters())
    assert total(model, batch).isfinite()


@pytest.mark.parametrize("rate", [0.0, 0.75])
def test_joint_inside_a_network_recovers_kendall_tau(rate: float) -> None:
    """Frozen encoders, embeddings of known tau, trained by the model's own penalty; trap 4 too."""
    rows = 12000 if rate else 4000
    z, present = correlated(rows, 4, [0.3, 0.7, 0.0, -0.5], rate)
    model = CM2({"a": Identity(4), "b": Identity(4)}, 2, components=1, hide=0.3, width=8)
    data = Batch({"a": z[:, 0], "b": z[:, 1]}, present)
    model.initialize_joint(data)
    optimizer = torch.optim.Adam(model.joint.parameters(), lr=5e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    for step in range(120):
        chosen = torch.arange(step * 1000, (step + 1) * 1000) % rows
        optimizer.zero_grad()
        model(take(data, chosen)).penalties["joint_nll"].backward()
        optimizer.step()
        schedule.step()
    joint = model.joint()
    found = joint.kendall_tau()[:, 0, 1].detach()
    torch.testing.assert_close(found, torch.tensor([0.3, 0.7, 0.0, -0.5]), atol=0.05, rtol=0)
    scale = joint.marginals.scale.detach()
    torch.testing.assert_close(scale, torch.ones_like(scale), atol=0.1, rtol=0)


def test_elbo_needs_a_posterior_with_an_entropy() -> None:
    with pytest.raises(ValueError, match="posterior='gaussian'"):
        network(objective="elbo")


def test_elbo_is_the_divergence_by_monte_carlo() -> None:
    """The closed entropy against the mean log density of the draws."""
    model, batch = network(2, posterior="gaussian", objective="elbo", hide=0.0), sample(6, 2)
    encoded = [model.encode(batch) for _ in range(600)]
    z = torch.stack([e.z for e in encoded]).detach()
    loc, scale = z.mean(0), z.std(0)
    there = batch.present.unsqueeze(-1)
    scale = torch.where(there, scale, 1.0)
    log_q = (torch.distributions.Normal(loc, scale).log_prob(z) * there).sum(-1).mean(0)
    torch.testing.assert_close(-log_q, encoded[0].entropy.detach(), atol=0.5, rtol=0)


def test_elbo_penalises_the_divergence_and_not_its_negative() -> None:
    """-H(q) - log p of the same draw, with a standard normal joint written out."""
    options = {"posterior": "gaussian", "objective": "elbo", "copula": "independence"}
    model, batch = network(2, components=1, **options), sample(40, 2)
    shape = (2, 1, model.dim)
    model.joint.marginals.set(loc=torch.zeros(shape), scale=torch.ones(shape))
    torch.manual_seed(3)
    encoded = model.encode(batch)
    torch.manual_seed(3)
    found = model(batch).penalties["kl"]
    normal = torch.distributions.Normal(0.0, 1.0)
    log_p = (normal.log_prob(encoded.z).sum(-1) * batch.present).sum(-1)
    expected = (-encoded.entropy.sum(-1) - log_p).mean() / (2 * model.dim)
    torch.testing.assert_close(found, expected)


def test_prediction_averages_imputations_and_reports_their_spread() -> None:
    model, batch = network(), sample(30)
    with torch.no_grad():
        model.joint.initialize(torch.randn(200, 3, 4) * 2, torch.ones(200, 3).bool())
    mean, spread = model.predict(batch, 50)
    complete = batch.present.all(-1)
    assert (spread[complete] == 0).all()
    assert (spread[~complete].amax(-1) > 0).all()
    assert torch.equal(model.predict(batch, 50).mean, mean)  # the base points are fixed
    other = model.predict(batch, 200).mean
    assert (mean - other)[complete].abs().max() == 0
    assert (mean - other).abs().max() < 5 * spread.max() * (1 / 50 + 1 / 200) ** 0.5
    assert model.training
    assert torch.equal(model.predict(batch, 1).mean[complete], mean[complete])


@pytest.mark.parametrize("imputation", ["conditional", "conditional-mean", "marginal"])
@pytest.mark.parametrize("copula", ["gaussian", "factor", "frank"])
def test_prediction_of_a_row_is_the_same_alone_and_beside_others(
    copula: str, imputation: str
) -> None:
    """To what the encoders round: their products are in single precision."""
    model, batch = network(copula=copula, imputation=imputation), sample(12)
    with torch.no_grad():
        model.joint.initialize(torch.randn(200, 3, 4) * 2, torch.ones(200, 3).bool())
    ask: Any = {
        "predict": lambda rows: model.predict(rows).mean,
        "spread": lambda rows: model.predict(rows, 4, sampled=True).spread,
        "forward": lambda rows: model(rows).logits,
        "complete": lambda rows: model.complete(rows, 3, sampled=True).transpose(0, 1),
    }
    model.eval()
    for name, call in ask.items():
        with torch.no_grad():
            together = call(batch)
            alone = torch.cat([call(one) for one in pieces(batch, 1)])
        assert (alone - together).abs().max() < 1e-5, name


def test_prediction_without_a_modality_that_was_always_there() -> None:
    model = network()
    batch = sample()
    full = batch._replace(present=torch.ones_like(batch.present))
    total(model, full).backward()
    assert model.predict(without(full, 1)).mean.isfinite().all()


def test_state_dict_and_deepcopy_keep_the_model() -> None:
    model, batch = network(), sample()
    copied, loaded = copy.deepcopy(model), network()
    loaded.load_state_dict(model.state_dict())
    for other in (copied, loaded):
        torch.manual_seed(0)
        left = model.predict(batch).mean
        torch.manual_seed(0)
        assert torch.equal(other.predict(batch).mean, left)


def test_uniformity_is_the_ks_distance() -> None:
    from scipy import stats

    u, present = torch.rand(200, 2, 3) ** 2, torch.rand(200, 2) < 0.6
    distance = uniformity(u, present)
    for m in range(2):
        for j in range(3):
            expected = stats.kstest(u[present[:, m], m, j].numpy(), "uniform").statistic
            assert abs(float(distance[m, j]) - expected) < 1e-5
    assert uniformity(u, torch.zeros(200, 2).bool()).isnan().all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="same dim"):
        CM2({"a": Identity(2), "b": Identity(3)}, 2)
    with pytest.raises(ValueError, match="hide"):
        network(hide=1.0)
    with pytest.raises(ValueError, match="labels is 0"):
        network(labels=0)
    with pytest.raises(ValueError, match="did you mean 'conditional'"):
        network(imputation="conditionl")
    with pytest.raises(ValueError, match="draws is 0"):
        network().predict(sample(), 0)
    with pytest.raises(ValueError, match="a column for each of"):
        network(2)(sample(modalities=3))
    assert list(FEATURES)[:3] == list(network().modalities)
