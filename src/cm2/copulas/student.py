r"""The Student-t copula: any correlation matrix, and both tails dependent.

Demarta and McNeil (2005), "The t copula and related copulas"; Ding (2016), "On the conditional
distribution of the multivariate t distribution", for conditional laws. Points are computed as
:math:`w = x / \sqrt\nu`, up to a factor :math:`e^{m/2}` that keeps them in the range of the dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Chi2, constraints
from torch.types import _size

from cm2.copulas.base import register
from cm2.copulas.elliptical import (
    Elliptical,
    Given,
    Ordered,
    Whitening,
    exchangeable,
    factor_of,
    multiply,
)
from cm2.copulas.orthant import box_probability, pair_cdf
from cm2.copulas.student_score import log_gamma_ratio, to_normal, to_student
from cm2.core.numerics import normal_quantile
from cm2.core.records import Unit

_FAR = 400.0


@register("student")
class StudentT(Elliptical):
    """The copula of a multivariate t law.

    Args:
        dim: Number of coordinates.
        correlation: Correlation matrix, positive definite; give this or ``scale_tril``. Zeros are
            not independence, which only large ``df`` approach.
        df: Degrees of freedom, positive.
        scale_tril: Cholesky factor of the correlation matrix.
        validate_args: Whether to check parameters and arguments.

    Raises:
        ValueError: If the matrix is not a correlation matrix of size ``dim``, or ``df`` is not
            positive.

    Example:
        >>> copula = StudentT(2, torch.tensor([[1.0, 0.5], [0.5, 1.0]]), df=4.0)
        >>> round(copula.upper_tail_dependence()[0, 1].item(), 4)
        0.2532
    """

    arg_constraints = {"scale_tril": constraints.corr_cholesky, "df": constraints.positive}

    def __init__(
        self,
        dim: int,
        correlation: Tensor | None = None,
        df: float | Tensor = 4.0,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        factor = factor_of("StudentT", dim, correlation, scale_tril)
        df = torch.as_tensor(df, dtype=factor.dtype, device=factor.device)
        shape = torch.broadcast_shapes(factor.shape[:-2], df.shape)
        self.scale_tril, self.df = factor.expand(*shape, dim, dim), df.expand(shape)
        super().__init__(dim, batch_shape=shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        shape = tuple(batch_shape)
        return {"scale_tril": torch.eye(dim).expand(*shape, dim, dim), "df": torch.full(shape, 8.0)}

    @classmethod
    def from_kendall_tau(
        cls, tau: float | Tensor, dim: int = 2, *, df: float | Tensor = 4.0
    ) -> Self:
        return cls(dim, exchangeable("StudentT", tau, dim), df)

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        r""":math:`2 T_{\nu+1}(-\sqrt{(\nu + 1)(1 - \rho) / (1 + \rho)})` (Demarta and McNeil)."""
        eye = self._eye().bool()
        return torch.where(eye, 1.0, self._tail(torch.where(eye, 0.0, self.correlation)))

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """As the lower one: the copula is symmetric about the middle of the cube."""
        return self.lower_tail_dependence()

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """As the lower one of a copula with the opposite correlation."""
        eye = self._eye().bool()
        return torch.where(eye, 0.0, self._tail(torch.where(eye, 0.0, -self.correlation)))

    def _tail(self, rho: Tensor) -> Tensor:
        rho = rho.clamp(-1, 1)
        df = (self.df + 1)[..., None, None]
        y = -_root_deviance(((1 - rho) / (1 + rho)).sqrt(), torch.zeros_like(rho), df)
        return 2 * torch.special.log_ndtr(to_normal(y, df)).exp()

    def _scores(self, unit: Unit) -> Tensor:
        return to_student(normal_quantile(*unit), self.df[..., None])

    def _log_density(self, whitening: Whitening, scores: Tensor, order: Tensor | int) -> Tensor:
        df = self.df
        point = _Point.of(scores, df)
        # log(1 + |w|^2) of the whitened point, and the margins' df log(1 + w^2) = y^2
        joint = point.log1p(multiply(whitening.matrix, point.w).square().sum(-1))
        margins = (0.5 * (df + 1) / df) * scores.square().sum(-1)
        constant = self._log_constant(order)
        return constant + whitening.log_determinant - 0.5 * (df + order) * joint + margins

    def _log_constant(self, order: Tensor | int) -> Tensor:
        """Logarithm of the ratio of the normalising constants, for each number of coordinates."""
        steps = torch.arange(self.dim, dtype=torch.double, device=self.df.device)
        df = self.df.double()[..., None]
        terms = 0.5 * torch.log1p(steps / df)
        terms = terms + log_gamma_ratio((df + steps) / 2) - log_gamma_ratio(df / 2)
        sums = torch.nn.functional.pad(terms.cumsum(-1), (1, 0)).to(self.df.dtype)
        if isinstance(order, int):
            return sums[..., order]
        shape = torch.broadcast_shapes(order.shape, sums.shape[:-1])
        table = sums.expand(*shape, -1)
        return table.gather(-1, order.expand(shape)[..., None]).squeeze(-1)

    def _draw(self, error: Tensor, given: Given | None) -> Unit:
        df = self.df[..., None]
        if given is None:
            w, shift = error / self._chi(error, self.df)[..., None], torch.zeros_like(df)
        else:
            point = _Point.of(given.scores, self.df)
            white = multiply(given.whitening.matrix, point.w)
            inside = point.scaled_one + white.square().sum(-1)
            radius = inside.sqrt() / self._chi(error, self.df + given.order)
            w = multiply(given.gain, point.w) + radius[..., None] * error
            shift = point.shift[..., None]
        return Unit.from_normal(to_normal(_root_deviance(w, shift, df), df))

    @staticmethod
    def _chi(error: Tensor, df: Tensor) -> Tensor:
        """Draws from the chi law, one for each vector of errors."""
        return Chi2(df.expand(error.shape[:-1]), validate_args=False).rsample().sqrt()

    def _conditional(self, unit: Unit, whitening: Whitening, earlier: Tensor) -> Unit:
        dtype = unit.log_u.dtype
        # In float64: what is conditioned on may be far smaller than what it is asked about.
        df = self.df.double()
        scores = self._scores(unit)
        point = _Point.of(scores.double(), df)
        white = multiply(whitening.matrix.double(), point.w)
        inside = (white.square()[..., None, :] * earlier).sum(-1) + point.scaled_one[..., None]
        order = earlier.sum(-1)
        tiny = torch.finfo(inside.dtype).tiny
        ratio = white / inside.clamp_min(tiny).sqrt()
        every = (df[..., None] + order).expand(ratio.shape)
        y = _root_deviance(ratio, torch.zeros_like(ratio), every)
        y = torch.where(order == 0, scores, y)
        z = to_normal(y, df[..., None], order)
        return Unit.from_normal(z.to(dtype))

    def _quantile(self, x: Tensor, scores: Tensor, present: Tensor, ordered: Ordered) -> Unit:
        # In float64, as the distribution functions that it inverts.
        df, x = self.df.double(), x.double()
        point = _Point.of(scores.double(), df)
        white = multiply(ordered.whitening.matrix.double(), point.w)
        inside = (white.square() * present).sum(-1) + point.scaled_one
        order = present.sum(-1)
        columns = list(white.unbind(-1))
        for m in range(self.dim):
            missing = ~present[..., m]
            total = df + order
            # A coordinate given k others is one of df + k degrees of freedom, and a radius.
            ratio = _quantile_of(to_student(x[..., m], total), total)
            columns[m] = torch.where(missing, ratio * inside.sqrt(), columns[m])
            inside = torch.where(missing, inside + columns[m].square(), inside)
            order = order + missing
        w = multiply(ordered.factor.double(), torch.stack(torch.broadcast_tensors(*columns), -1))
        y = _root_deviance(w, point.shift[..., None], df[..., None])
        return Unit.from_normal(to_normal(y, df[..., None]).to(scores.dtype))

    def _cdf(self, unit: Unit) -> Tensor:
        exact, df = unit.map(Tensor.double), self.df.double()[..., None]
        y = to_student(normal_quantile(*exact), df)
        # Beyond these the law has no mass that float64 could tell.
        x = _quantile_of(y, df)
        if self.dim == 2:
            kernel = _power(df)
            value = pair_cdf(exact, x, self.scale_tril.double(), kernel)
        else:
            value = box_probability(
                x, self.scale_tril.double(), *(_radial(df, part) for part in (_given, _quantile))
            )
        return value.to(unit.log_u.dtype)


class _Point(NamedTuple):
    """Points ``exp(shift / 2) w`` of the t law over the root of its degrees of freedom."""

    w: Tensor
    shift: Tensor

    @classmethod
    def of(cls, scores: Tensor, df: Tensor) -> _Point:
        """From signed root deviances y: ``w^2 = exp(y^2 / df) - 1``."""
        df = df[..., None]
        g = scores.square() / df
        shift = g.detach().amax(-1)
        ratio = _expm1_ratio(-g)  # (1 - exp(-g)) / g, for a smooth root at 0
        w = scores * (ratio / df).sqrt() * (0.5 * (g - shift[..., None])).exp()
        return cls(w, shift)

    @property
    def scaled_one(self) -> Tensor:
        """1 on the scale of the squared ``w``."""
        return (-self.shift).exp()

    def log1p(self, square: Tensor) -> Tensor:
        """``log(1 + exp(shift) square)``."""
        return self.shift + torch.log1p(torch.expm1(-self.shift) + square)


def _expm1_ratio(x: Tensor) -> Tensor:
    """``(exp(x) - 1) / x``."""
    tiny = x.abs() < 1e-5
    safe = torch.where(tiny, 1.0, x)
    return torch.where(tiny, 1 + x / 2, torch.expm1(safe) / safe)


def _root_deviance(w: Tensor, shift: Tensor, df: Tensor) -> Tensor:
    """Signed root of ``df log(1 + exp(shift) w^2)``, smooth at 0."""
    far = 2 * w.detach().abs().log() + shift > 0
    near_w = torch.where(far, 0.0, w) * torch.where(far, 0.0, 0.5 * shift).exp()
    square = near_w.square()
    tiny = square < 1e-8
    safe = torch.where(tiny, 1.0, square)
    near = near_w * torch.where(tiny, 1 - square / 2, safe.log1p() / safe).sqrt()
    far_w = torch.where(far, w, 1.0)
    log_square = 2 * far_w.abs().log() + torch.where(far, shift, 0.0)
    root = (log_square + torch.log1p((-log_square).exp())).sqrt()
    return df.sqrt() * torch.where(far, far_w.sign() * root, near)


def _power(df: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda square: (-0.5 * df * torch.log1p(square)).exp()


def _radial(
    df: Tensor, law: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """A law of a whitened coordinate whose degrees of freedom grow by one with each before it."""
    return lambda value, squares, order: law(value, squares, df + order)


def _given(white: Tensor, squares: Tensor, df: Tensor) -> Tensor:
    ratio = white / (1 + squares).sqrt()
    y = _root_deviance(ratio, torch.zeros_like(ratio), df)
    return torch.special.ndtr(to_normal(y, df))


def _quantile(p: Tensor, squares: Tensor, df: Tensor) -> Tensor:
    y = to_student(torch.special.ndtri(p), df)
    return _quantile_of(y, df) * (1 + squares).sqrt()


def _quantile_of(y: Tensor, df: Tensor) -> Tensor:
    """The point over the root of its degrees of freedom, at a signed root deviance."""
    return y * (_expm1_ratio((y.square() / df).clamp_max(_FAR)) / df).sqrt()
