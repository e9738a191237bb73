"""The method as the paper prints it: its objective, mixtures, draws and classifier."""

from typing import Any

import pytest
import torch

from cm2.networks.models import CM2
from laws import FLOAT32
from small_networks import network, sample, take

PRINTED: dict[str, Any] = {
    "objective": "likelihood",
    "copula": "gumbel",
    "shared": True,
    "imputation": "marginal",
    "hide": 0.0,
    "normalize": True,
    "marked": False,
    "classifier": "linear",
    "auxiliary": False,
}


def printed(**options: Any) -> CM2:
    model = network(**PRINTED | options)
    model.initialize(sample(60, seed=3))
    return model


def moved(model: CM2) -> set[str]:
    """Parts of the model that a gradient has reached."""
    return {
        name.split(".")[1] if name.startswith("joint") else name.split(".")[0]
        for name, value in model.named_parameters()
        if value.grad is not None and bool(value.grad.any())
    }


def test_the_likelihood_trains_encoders_mixtures_and_copula() -> None:
    """It is the mean log joint of what is present; alignment sends the marginals to no encoder."""
    model, batch = printed(), sample(20)
    output = model(batch)
    expected = -model.joint().log_prob(model.embed(batch), batch.present).mean()
    torch.testing.assert_close(output.penalties["likelihood"], expected, **FLOAT32)
    assert set(output.penalties) == {"likelihood"}
    output.penalties["likelihood"].backward()
    assert moved(model) == {"_encoders", "marginals", "copula"}
    assert model.joint.copula.unconstrained["alpha"].grad.any()
    assert all(value.grad.any() for value in model.joint.marginals.parameters())


def test_the_likelihood_has_no_bound() -> None:
    """At one point each tenth of a scale gains log(10) a coordinate, also at length one."""
    model, batch = printed(components=1, copula="independence"), take(sample(4), [0, 0])
    z = model.embed(batch).detach()
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2, 3), **FLOAT32)
    found = []
    for scale in (1e-1, 1e-2, 1e-3):
        model.joint.marginals.set(loc=z[0].unsqueeze(1), scale=torch.full((3, 1, 4), scale))
        found.append(model(batch).penalties["likelihood"].detach())
    gains = -torch.stack(found).diff()
    # Of float32 embeddings that agree with the means to their last digit or two.
    torch.testing.assert_close(gains, torch.full((2,), 12 * 2.302585), rtol=1e-4, atol=0.0)


def test_absent_embeddings_stay_zero_where_present_ones_have_length_one() -> None:
    model, batch = printed(), sample(20)
    torch.testing.assert_close(model.embed(batch).norm(dim=-1), batch.present.float(), **FLOAT32)


@pytest.mark.parametrize("mixing", ["constant", "network"])
def test_gradients_go_through_the_draws_or_not(mixing: str) -> None:
    """Moving all means of a mixture moves its draws alike: the gradients of their sum are one."""
    batch = sample(20)
    absent = (~batch.present).sum(dim=0)[:, None].expand(-1, 4).float()
    for through in (True, False):
        model = printed(through=through, mixing=mixing)
        z = model.embed(batch).detach()
        completed = model.impute(z, batch.present)
        assert completed.requires_grad == through
        if through:
            (completed * ~batch.present[..., None]).sum().backward()
            assert moved(model) == {"marginals"} | (
                {"mixing"} & {mixing.replace("network", "mixing")}
            )
            means = model.joint.marginals.unconstrained["loc"].grad.sum(dim=1)
            # The inverse is solved to about 1e-6 of a scale.
            torch.testing.assert_close(means, absent, rtol=1e-3, atol=1e-3)
        model.eval()
        assert not model.impute(z, batch.present).requires_grad


def test_a_conditional_draw_sends_gradients_to_what_it_is_conditioned_on() -> None:
    model, batch = network(through=True, hide=0.0, copula="frank"), sample(20)
    model.initialize(batch)
    z = model.embed(batch).detach().requires_grad_()
    completed = model.impute(z, batch.present)
    (completed * ~batch.present[..., None]).sum().backward()
    some = batch.present & ~batch.present.all(dim=1, keepdim=True)
    assert torch.equal(z.grad.any(dim=-1), some)


def test_mixtures_of_a_sample_follow_what_it_has() -> None:
    """A draw is moved by the present embeddings, by the weights of its components alone."""
    batch = sample(20)
    for mixing in ("constant", "network"):
        model = printed(mixing=mixing, components=3).eval()
        z = model.embed(batch).detach()
        for value in model.mixing.parameters():
            value.data.mul_(20)  # of a trained network: at its start all samples are much alike
        with torch.no_grad():
            first, second = model.impute(z, batch.present), model.impute(-z, batch.present)
        change = (first - second)[~batch.present].abs().amax(dim=-1) > 1e-3
        assert bool(change.any()) == (mixing == "network")
        law = model.law(z, batch.present)
        assert law.event_shape == (3, 4)
        assert law.marginals.batch_shape == ((20, 3) if mixing == "network" else (3,))


def test_a_network_of_weights_reads_nothing_that_is_absent() -> None:
    model, batch = printed(mixing="network").eval(), sample(20)
    z = model.embed(batch).detach()
    other = torch.where(batch.present[..., None], z, 7.0)
    for each in (z, other):
        found = model.law(each, batch.present).marginals.logits
        torch.testing.assert_close(found, model.law(z, batch.present).marginals.logits)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "alignment"},
        {"imputation": "conditional"},
        {"coupling": "shared-components"},
    ],
    ids=str,
)
def test_a_network_of_weights_is_refused_where_there_is_no_law(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mixing='network' each sample has mixtures of its own"):
        printed(mixing="network", **options)


def test_without_sampling_and_fusion_the_logits_are_linear_in_what_is_there() -> None:
    """Zeros stand for what is missing, and nothing says that they do."""
    model, batch = printed(imputation="zero", fusion="beside").eval(), sample(20)
    linear = model.classifier[-1]
    expected = model.embed(batch).flatten(1) @ linear.weight.T + linear.bias
    torch.testing.assert_close(model(batch).logits, expected, **FLOAT32)
    assert model(batch).logits_by_modality == {}
    marked = printed(imputation="zero", fusion="beside", marked=True).eval()
    whole = batch.present.all(dim=1)
    same = (marked(batch).logits - expected).abs().amax(dim=1) < 1e-5
    assert torch.equal(same, whole)
