"""A variational autoencoder of all modalities, whose posterior is a product of experts.

Wu and Goodman (2018), Multimodal generative models for scalable weakly-supervised learning,
NeurIPS, https://arxiv.org/abs/1802.05335, equations 3 to 5.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from cm2.core.numerics import seeded
from cm2.estimators.baselines import Rival
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.fusion import INNER_FOLDS
from cm2.estimators.tuning import tune
from cm2.samples.scaling import RobustScaler
from cm2.samples.tables import present


class ProductOfExperts(nn.Module):
    """Gaussian experts of each modality, multiplied with a standard normal prior; and decoders.

    Args:
        widths: Number of columns of each modality.
        dim: Coordinates of the latent vector.
        width: Width of hidden layers.
    """

    def __init__(self, widths: Sequence[int], dim: int, width: int = 32) -> None:
        super().__init__()
        self.widths = list(widths)
        self.encoders = nn.ModuleList(_mlp(size, width, 2 * dim) for size in widths)
        self.decoders = nn.ModuleList(_mlp(dim, width, size) for size in widths)
        self.log_scale = nn.Parameter(torch.zeros(sum(widths)))

    def experts(
        self, x: Float[Tensor, "row column"]
    ) -> tuple[Float[Tensor, "row modality dim"], Float[Tensor, "row modality dim"]]:
        """Returns means and precisions; gaps of ``x`` are filled."""
        parts = x.split(self.widths, dim=-1)
        both = [encode(part) for encode, part in zip(self.encoders, parts, strict=True)]
        mean, log_precision = torch.stack(both, dim=-2).chunk(2, dim=-1)
        return mean, log_precision.clamp(-10, 10).exp()

    def posterior(
        self,
        mean: Float[Tensor, "*#shape modality dim"],
        precision: Float[Tensor, "*#shape modality dim"],
        shown: Bool[Tensor, "*shape modality"],
    ) -> tuple[Float[Tensor, "*shape dim"], Float[Tensor, "*shape dim"]]:
        """Returns mean and precision of the product of the prior and the experts shown."""
        weight = precision * shown.unsqueeze(-1)
        total = 1 + weight.sum(dim=-2)
        return (weight * mean).sum(dim=-2) / total, total

    def elbo(
        self, x: Float[Tensor, "row column"], shown: Bool[Tensor, "subset row modality"]
    ) -> Float[Tensor, "subset row"]:
        """Returns evidence lower bounds of what each subset of the modalities shows.

        Args:
            x: Standardised columns, NaN where missing.
            shown: The modalities of each subset.
        """
        mean, total = self.posterior(*self.experts(x.nan_to_num()), shown)
        z = mean + torch.randn_like(mean) * total.rsqrt()
        again = torch.cat([decode(z) for decode in self.decoders], dim=-1)
        error = (x.nan_to_num() - again) * (-self.log_scale).exp()
        known = shown.repeat_interleave(torch.tensor(self.widths), dim=-1) & ~x.isnan()
        likelihood = -((0.5 * error.square() + self.log_scale) * known).sum(dim=-1)
        divergence = 0.5 * (1 / total + mean.square() - 1 + total.log()).sum(dim=-1)
        return likelihood - divergence


def _mlp(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )


class MultimodalVAE(Rival):
    """Logistic regression on the posterior mean of a multimodal variational autoencoder.

    The autoencoder sees no classes. Its loss in each step is that of all modalities of a row, of
    each of them alone, and of some random subsets; each reconstructs what it shows. Scales of the
    reconstruction are learned, one a column.

    Args:
        dim: Coordinates of the latent vector.
        subsets: Random subsets of the modalities in each step.
        max_epochs: Largest number of passes over the rows.
        patience: Passes without a better bound on held-out rows before training stops.
        learning_rate: Of AdamW.
        batch_size: Rows of a step.
        random_state: Seed.
    """

    def __init__(
        self,
        dim: int = 16,
        subsets: int = 2,
        max_epochs: int = 60,
        patience: int = 8,
        learning_rate: float = 4e-3,
        batch_size: int = 256,
        random_state: int = 0,
    ) -> None:
        self.dim = dim
        self.subsets = subsets
        self.max_epochs = max_epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        groups: ndarray | None,
    ) -> None:
        self.scaler_ = RobustScaler().fit(np.hstack(list(values.values())), None, weight)
        # An encoder that no row has trained would only add noise.
        self.trained_ = present(values).any(axis=0)
        x, shown = self._tensors(values)
        folds = stratified_folds(y, INNER_FOLDS, self.random_state, groups)
        with seeded(self.random_state):
            widths = [block.shape[1] for block in values.values()]
            self.network_ = ProductOfExperts(widths, self.dim)
            self._train(x, shown, torch.from_numpy(weight).float(), torch.from_numpy(folds == 0))
        z, labels = self._embedded(values), len(self.classes_)
        self.tuned_ = tune("linear", z, y, weight, labels, self.random_state, groups=groups)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        return self.tuned_.proba(self._embedded(values))

    def _tensors(
        self, values: dict[str, Float[ndarray, "n _"]]
    ) -> tuple[Float[Tensor, "n column"], Bool[Tensor, "n modality"]]:
        """Standardised columns, NaN where missing, and what each row has."""
        x = self.scaler_.transform(np.hstack(list(values.values())))
        return torch.from_numpy(x).float(), torch.from_numpy(present(values) & self.trained_)

    @torch.no_grad()
    def _embedded(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n dim"]:
        """Posterior means."""
        x, shown = self._tensors(values)
        mean, _ = self.network_.posterior(*self.network_.experts(x.nan_to_num()), shown)
        return np.asarray(mean.double().numpy())

    def _train(
        self,
        x: Float[Tensor, "n column"],
        shown: Bool[Tensor, "n modality"],
        weight: Float[Tensor, " n"],
        held: Bool[Tensor, " n"],
    ) -> None:
        """Trains until the bound of the rows held out is no longer better; keeps the best."""
        network, rows = self.network_, torch.nonzero(~held)[:, 0]
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate)
        best, kept, waited = -np.inf, copy.deepcopy(network.state_dict()), 0
        for _ in range(self.max_epochs):
            for batch in rows[torch.randperm(len(rows))].split(self.batch_size):
                bound = network.elbo(x[batch], self._subsets(shown[batch])).sum(dim=0)
                loss = -(bound * weight[batch]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            # The same draws in every pass, so that passes differ by what was learned alone.
            with torch.no_grad(), seeded(self.random_state):
                bound = network.elbo(x[held], shown[held].unsqueeze(0))[0]
            found = float(bound @ weight[held])
            waited = 0 if found > best else waited + 1
            if waited == 0:
                best, kept = found, copy.deepcopy(network.state_dict())
            elif waited == self.patience:
                break
        network.load_state_dict(kept)

    def _subsets(self, shown: Bool[Tensor, "row modality"]) -> Bool[Tensor, "subset row modality"]:
        """All that rows have, each modality alone, and random subsets."""
        count = shown.shape[1]
        singles = torch.eye(count, dtype=torch.bool).unsqueeze(1)
        drawn = torch.rand(self.subsets, 1, count) < 0.5
        return torch.cat([shown.unsqueeze(0), singles & shown, drawn & shown])
