"""The joint inside a network: known dependence recovered by the training of `training.train`.

Encoders are frozen (the identity), so that embeddings keep the law from which numpy drew them. The
cells cover all pairs of d, M, K, tau and missing rate but for a few. Errors of a tau: at most
(2 / pi) / sqrt(pairs) by chance, .01 at the 4,000 pairs drawn here, and the last steps of Adam.
"""

import numpy as np
import pytest
import torch

import oracles
from cm2.networks import training
from cm2.networks.models import CM2
from cm2.networks.tasks import Multiclass
from cm2.samples.batches import ArrayDataset
from small_networks import Identity

TAU_TOLERANCE = 0.05
MEAN_TOLERANCE = 0.2
"""Of the mean of a component, in its standard deviations."""
SCALE_TOLERANCE = 0.15
"""Of the scale of a component, relative."""
WEIGHT_TOLERANCE = 0.05
BATCH = 500

# d, M, K, tau, share missing, whether coordinates share the copula's parameters
QUICK = [
    (1, 2, 1, -0.5, 0.0, False),
    (1, 3, 2, 0.7, 0.75, False),
    (8, 2, 2, 0.3, 0.0, False),
    (8, 3, 2, -0.5, 0.75, True),
]
SLOW = [
    (8, 3, 1, 0.0, 0.0, False),
    (64, 2, 1, 0.7, 0.0, True),
    (1, 2, 2, 0.0, 0.75, False),
    (1, 3, 1, 0.3, 0.0, False),
    (8, 2, 1, 0.7, 0.75, False),
    (64, 3, 2, 0.0, 0.0, False),
    (64, 2, 1, 0.3, 0.75, True),
    (64, 3, 2, -0.5, 0.75, True),
]


def pairwise(tau: float, modalities: int) -> np.ndarray:
    """Kendall tau between modalities; three of them cannot all be strongly negative: (-, -, +)."""
    matrix = np.full((modalities, modalities), abs(tau))
    matrix[0, 1:] = matrix[1:, 0] = tau
    np.fill_diagonal(matrix, 1.0)
    return matrix


def mixtures(
    dim: int, modalities: int, components: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (M, K), means and scales (M, K, d); two components are five or more scales apart."""
    weight = np.array([[0.4, 0.6], [0.5, 0.5], [0.6, 0.4]])[:modalities, :components]
    weight = weight / weight.sum(1, keepdims=True)
    loc = np.array([-2.5, 2.5])[:components, None] * rng.choice([-1, 1], (modalities, 1, dim))
    loc = loc + rng.uniform(-0.3, 0.3, loc.shape)
    return weight, loc, rng.uniform(0.6, 1.0, loc.shape)


def recover(
    dim: int, modalities: int, components: int, tau: float, rate: float, shared: bool
) -> None:
    """Simulates, trains, and checks every tau and every parameter of every mixture."""
    rng = np.random.default_rng(dim + 100 * modalities + components)
    seen = {0.0: 1.0, 0.75: {2: 0.142, 3: 0.108}[modalities]}[rate]
    rows = int((4000 / min(dim, 2) if shared else 4000) / seen)
    weight, loc, scale = mixtures(dim, modalities, components, rng)
    present = oracles.drop(rows, modalities, rate, rng)
    expected = pairwise(tau, modalities)
    z = oracles.simulate_joint(weight, loc, scale, oracles.tau_to_rho(expected), rows, rng, present)
    names = ["a", "b", "c"][:modalities]
    values = {name: z[:, m].astype(np.float32) for m, name in enumerate(names)}
    # One label for all: the validation loss falls to the end, so the last epoch is the best one.
    data = ArrayDataset(values, present, np.zeros(rows, int))
    model = CM2(
        {name: Identity(dim) for name in names}, 2, components=components, shared=shared,
        width=4, hide=0.2, fusion="concat", imputation="zero", seed=0,
    )  # fmt: skip
    epochs = max(400 * BATCH // rows, 6)
    training.train(
        model, Multiclass(2), data, data.take(range(200)), weights={"joint_nll": 30.0},
        lr=4e-3, clip=1e3, weight_decay=0.0, max_epochs=epochs, patience=epochs, batch_size=BATCH,
        accelerator="cpu",
    )  # fmt: skip
    with torch.no_grad():
        joint = model.joint()
        error = np.abs(joint.kendall_tau().double().numpy() - expected).max()
        fitted = [
            part.double().numpy()
            for part in (joint.marginals.weights, joint.marginals.loc, joint.marginals.scale)
        ]
    assert error < TAU_TOLERANCE, f"largest error of tau {error:.3f}"
    for m in range(modalities):
        order = np.abs(fitted[1][m][:, None] - loc[m][None]).mean(-1).argmin(0)
        assert sorted(order) == list(range(components)), "a component is missing"
        found_weight, found_loc, found_scale = (part[m][order] for part in fitted)
        assert np.abs(found_weight - weight[m]).max() < WEIGHT_TOLERANCE
        assert (np.abs(found_loc - loc[m]) / scale[m]).max() < MEAN_TOLERANCE
        assert np.abs(found_scale / scale[m] - 1).max() < SCALE_TOLERANCE


@pytest.mark.parametrize(("dim", "modalities", "components", "tau", "rate", "shared"), QUICK)
def test_training_recovers_dependence_and_mixtures(
    dim: int, modalities: int, components: int, tau: float, rate: float, shared: bool
) -> None:
    recover(dim, modalities, components, tau, rate, shared)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "modalities", "components", "tau", "rate", "shared"), SLOW)
def test_training_recovers_dependence_and_mixtures_in_more_cells(
    dim: int, modalities: int, components: int, tau: float, rate: float, shared: bool
) -> None:
    recover(dim, modalities, components, tau, rate, shared)
