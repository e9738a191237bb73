"""Choice of a family by an information criterion (Akaike 1974, Schwarz 1978)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cm2.copulas.base import REGISTRY, Copula
from cm2.copulas.estimation import Fit, fit_prepared
from cm2.copulas.observations import Data, mean_tau, read

Family = str | type[Copula] | Copula


@dataclass(frozen=True)
class Selection:
    """Families ranked by a criterion.

    Attributes:
        table: Fits from the best to the worst; those without a maximum come last.
        criterion: ``"bic"`` or ``"aic"``.
    """

    table: tuple[Fit, ...]
    criterion: str

    @property
    def best(self) -> Fit:
        """The fit with the smallest criterion."""
        return self.table[0]

    @property
    def copula(self) -> Copula:
        """The copula of the best fit."""
        return self.best.copula

    def score(self, fit: Fit) -> float:
        """The criterion of a fit."""
        return fit.aic if self.criterion == "aic" else fit.bic

    def __repr__(self) -> str:
        width = max(len(fit.family) for fit in self.table)
        title = self.criterion.upper()
        lines = [f"{'family':<{width}}  parameters  log likelihood  {title:>10}  difference"]
        for fit in self.table:
            score = self.score(fit)
            lines.append(
                f"{fit.family:<{width}}  {fit.degrees_of_freedom:>10}  "
                f"{fit.log_likelihood:>14.2f}  "
                f"{score:>10.2f}  {score - self.score(self.best):>10.2f}"
                + ("" if fit.converged else "  no maximum")
            )
        return "\n".join(lines)


def select(
    u: Any,
    families: Iterable[Family] | None = None,
    criterion: str = "bic",
) -> Selection:
    """Fits families by maximum likelihood and ranks them.

    Args:
        u: Data in (0, 1) of shape ``(row, dim)``, NaN where missing; see :func:`fit`.
        families: Names, classes or copulas to start from; by default all registered families
            that can have dependence of the sign in the data, but for survival and factor copulas.
            For pairs all of them are ``list(copulas.REGISTRY)``, of which some have two
            coordinates only.
        criterion: ``"bic"`` or ``"aic"``. Where one family contains another (Student-t the
            Gaussian), the first finds the smaller one as data grow; the second takes the larger in
            about one case of twelve, however many data there are.

    Returns:
        All fits, the best first.

    Raises:
        ValueError: If a family or the criterion is unknown, if there is no family, or if ``u``
            cannot determine parameters.

    Example:
        >>> import torch
        >>> from cm2 import copulas
        >>> _ = torch.manual_seed(0)
        >>> u = copulas.Frank(dim=2, theta=torch.tensor(-6.0).double()).sample((500,))
        >>> copulas.select(u, families=["independence", "gaussian", "frank"]).best.family
        'frank'
    """
    if criterion not in ("aic", "bic"):
        raise ValueError(f"the criterion must be 'aic' or 'bic', got {criterion!r}")
    data = read(u)
    chosen = _able(data) if families is None else list(families)
    if not chosen:
        raise ValueError("there is no family to select from")
    fits = [fit_prepared(data, family) for family in chosen]
    # Of a likelihood without bound a search finds as much as it has patience for.
    fits.sort(key=lambda fit: (not fit.converged, fit.aic if criterion == "aic" else fit.bic))
    return Selection(tuple(fits), criterion)


def _able(data: Data) -> list[Family]:
    """Families whose Kendall's tau can be near that of the data, but for two kinds.

    Others, a Gumbel copula for negative dependence, say, would be fitted by independence. Survival
    copulas have to be asked for: that of Joe is so near to Clayton's copula (and Joe's to that of
    Clayton) that thousands of points do not tell them apart for certain. So has the factor copula,
    which is the Gaussian one for two coordinates.
    """
    dim = len(data.tau)
    determined = data.observations >= dim and not data.tau.isnan().any()
    mean = mean_tau(data.tau)
    # Two standard errors of tau under independence, 2 / (3 sqrt n): its sign may be either.
    shared = data.together[data.together > 0].min()
    unsure = 4 / 3 / float(shared) ** 0.5
    signs = {mean, -mean} if abs(mean) < unsure else {mean}
    return [
        name
        for name in REGISTRY
        if name == "independence"
        or (
            not name.startswith("survival-")
            and not REGISTRY[name].couples_vectors
            # A correlation matrix takes every data's signs, if every two columns tell theirs.
            and (determined or not REGISTRY[name].free_correlations)
            and any(REGISTRY[name].reaches(tau, dim) for tau in signs)
        )
    ]
