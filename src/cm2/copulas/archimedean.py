r"""Archimedean copulas: :math:`C(u) = \psi(\sum_m \psi^{-1}(u_m))`.

Everything works on :math:`\log t = \log \psi^{-1}(u)`, since :math:`t` itself overflows float32 at
moderate dependence. Densities: McNeil and Neslehova (2009); conditional laws are ratios of
generator derivatives, e.g. Hofert, Mächler and McNeil (2012), "Likelihood inference for Archimedean
copulas".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.types import _size

from cm2.copulas.base import CHUNK, Copula
from cm2.copulas.measures import spearman_from_cdf
from cm2.core.numerics import log_cloglog, log_neg_log
from cm2.core.records import Base, Unit

_SOLVER_STEPS = 60
# Coefficients of derivatives grow like (dim - 1)!, and gradients by as much again: up to here that
# is within the range of float32.
_SINGLE = 16
LARGEST_DIM = 80
"""Up to here the coefficients and their gradients are within the range of float64."""


class _Given(NamedTuple):
    """What a conditional law needs of the coordinates that are given."""

    log_sum: Tensor
    order: Tensor
    at_sum: Tensor
    log_hazard: Tensor


class Archimedean(Copula):
    """A family states its generator in log space; densities, margins and conditionals follow.

    A family has one parameter, named in ``arg_constraints``. A coordinate that is not present
    counts as ``t = 0``: sums run over the present ones, and the order of the derivative is their
    number.
    """

    @abstractmethod
    def log_inverse(self, unit: Unit) -> Tensor:
        r"""``log t`` with :math:`t = \psi^{-1}(u)`, for points whose last dimension is M."""

    @abstractmethod
    def generator(self, log_t: Tensor) -> Unit:
        r""":math:`u = \psi(t)`, for ``log t`` whose last dimension is M."""

    @abstractmethod
    def log_derivative(self, log_t: Tensor, order: Tensor | int) -> Tensor:
        r""":math:`\log (-1)^k \psi^{(k)}(t)` for order k from 0 to ``dim``.

        The shape of ``log_t`` is that of the batch, or a broadcast of it.
        """

    @abstractmethod
    def _tau(self) -> Tensor:
        """Kendall's tau, of the batch shape."""

    def _wide(self, value: Tensor) -> Tensor:
        """In a dtype whose range holds the coefficients of derivatives of every order."""
        return value if self.dim <= _SINGLE else value.double()

    # Dependence, the same for every two coordinates ----------------------------------------------

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        return self._for_pairs(self._tau())

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        return self._for_pairs(self._spearman())

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        r"""Of every two coordinates, :math:`\lim_{u \to 0} C(u, u) / u`."""
        return self._for_pairs(self._lower_tail())

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        r"""Of every two coordinates, :math:`\lim_{u \to 1} (1 - 2u + C(u, u)) / (1 - u)`."""
        return self._for_pairs(self._upper_tail())

    def _lower_tail(self) -> Tensor:
        return torch.zeros_like(self._like_parameters())

    def _upper_tail(self) -> Tensor:
        return torch.zeros_like(self._like_parameters())

    def _spearman(self) -> Tensor:
        arguments: dict[str, Any] = {name: part.double() for name, part in self.parameters.items()}
        pair = type(self)(2, **arguments, validate_args=False)
        like = self._like_parameters().new_empty((*self.batch_shape, 2, 2))
        return spearman_from_cdf(pair.cdf, like.double()).to(like.dtype)

    def _for_pairs(self, value: Tensor) -> Tensor:
        value = value[..., None, None].expand(*self.batch_shape, self.dim, self.dim)
        eye = torch.eye(self.dim, dtype=torch.bool, device=value.device)
        return torch.where(eye, torch.ones_like(value), value)

    def marginal(self, present: Bool[Tensor, " dim"]) -> Archimedean:
        arguments: dict[str, Any] = {**self.parameters, "validate_args": False}
        return type(self)(int(present.sum()), **arguments)

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        log_t = self.log_inverse(unit)
        log_margin = self._log_margin(unit, log_t)
        if present is None:
            return self.log_derivative(torch.logsumexp(log_t, -1), self.dim) - log_margin.sum(-1)
        order = present.sum(-1)
        log_sum = torch.where(order > 0, _present_sum(log_t, present), 0.0)
        density = self.log_derivative(log_sum, order)
        density = density - torch.where(present, log_margin, 0.0).sum(-1)
        # The density of one uniform coordinate, or of none, is one.
        return torch.where(order > 1, density, 0.0)

    @abstractmethod
    def _log_margin(self, unit: Unit, log_t: Tensor) -> Tensor:
        r""":math:`\log -\psi'(t)` at a point and its ``log t``, whose last dimension is M."""

    def _cdf(self, unit: Unit) -> Tensor:
        return self.generator(torch.logsumexp(self.log_inverse(unit), -1)[..., None]).u.squeeze(-1)

    # Draws ---------------------------------------------------------------------------------------

    @abstractmethod
    def _log_frailty(self, shape: Size) -> Tensor:
        r"""Draws :math:`\log V`, in doubles, where V has the Laplace transform :math:`\psi`.

        The last dimensions of ``shape`` are those of the batch.
        """

    @torch.no_grad()
    def sample_unit(self, sample_shape: _size = ()) -> Unit:
        r"""Draws points by their frailty, without gradients.

        :math:`u_m = \psi(E_m / V)` with exponential :math:`E_m`: Marshall and Olkin (1988).
        """
        shape = self._extended_shape(Size(sample_shape))[:-1]
        like = self._like_parameters()
        exponential = torch.rand((self.dim, *shape), dtype=like.dtype, device=like.device)
        exponential = exponential.clamp_min_(torch.finfo(like.dtype).tiny).log_().neg_()
        log_t = exponential.log_() - self._log_frailty(shape).to(like.dtype)
        return self.generator(log_t.movedim(0, -1))

    @torch.no_grad()
    def sample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        first = Size(sample_shape).numel()
        rows = max(1, CHUNK // max(1, self.batch_shape.numel() * self.dim))
        starts = range(0, max(first, 1), rows)  # one piece at least, be it empty
        parts = [self.sample_unit((min(rows, first - start),)).u for start in starts]
        shape = self._extended_shape(Size(sample_shape))
        return torch.cat([part.contiguous() for part in parts]).reshape(shape)

    def rsample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws points one coordinate after the other, reparameterised."""
        return super().sample_unit(sample_shape).u

    # Conditional laws --------------------------------------------------------------------------

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        log_t = self.log_inverse(unit)
        shape = torch.broadcast_shapes(log_t.shape, present.shape)
        present = present.expand(shape)
        log_sum = _present_sum(log_t, present)
        order = present.sum(-1)
        columns = [part.expand(shape).unbind(-1) for part in unit]
        parts = [Unit(*pair) for pair in zip(*columns, strict=True)]
        for m in range(self.dim):
            missing = ~present[..., m]
            part = log_t[..., m].expand(missing.shape)
            # Nothing before it: the coordinate itself.
            first = order == 0
            y = self._given_cdf(part, torch.where(first, 0.0, log_sum), order.clamp_min(1))
            cdf = Unit(-y.exp(), log_cloglog(y))
            chosen = missing & ~first
            parts[m] = parts[m].map(lambda old, new, c=chosen: torch.where(c, new, old), cdf)
            log_sum = torch.where(missing, torch.logaddexp(log_sum, part), log_sum)
            order = order + missing
        return Unit(*(torch.stack(column, -1) for column in zip(*parts, strict=True)))

    def _given_cdf(self, log_t: Tensor, log_sum: Tensor, order: Tensor) -> Tensor:
        """``log(-log F)`` of one more coordinate given the sum over ``order >= 1`` others."""
        return self._conditional(log_t, self._given(log_sum, order))[0]

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        log_t = self.log_inverse(unit)
        shape = torch.broadcast_shapes(log_t.shape, present.shape)
        present = present.expand(shape)
        parts = list(log_t.expand(shape).unbind(-1))
        log_sum = _present_sum(log_t, present)
        order = present.sum(-1)
        # One coordinate after the other, each given the present ones and those drawn before it.
        for m in range(self.dim):
            missing = ~present[..., m]
            if not missing.any():
                continue
            u = torch.rand_like(log_sum) if base is None else base.coordinate[..., m]
            parts[m] = torch.where(missing, self._draw_given(log_sum, order, u), parts[m])
            log_sum = torch.where(missing, torch.logaddexp(log_sum, parts[m]), log_sum)
            order = order + missing
        return self.generator(torch.stack(torch.broadcast_tensors(*parts), -1))

    def _draw_given(self, log_sum: Tensor, order: Tensor, u: Tensor) -> Tensor:
        r"""``log t`` of one more coordinate at a uniform, given the sum over ``order`` others.

        Inverts :math:`F(u) = \psi^{(k)}(t_O + \psi^{-1}(u)) / \psi^{(k)}(t_O)` in
        :math:`y = \log(-\log u)`, where both tails are nearly straight lines.
        """
        none = order == 0
        given = self._given(torch.where(none, 0.0, log_sum), order)
        target = log_neg_log(*Unit.from_u(u.expand(torch.broadcast_shapes(u.shape, none.shape))))
        y = self._solve(given, target)
        # One Newton step that carries gradients: it leaves the solution where it is and gives it
        # the derivatives of the implicit function theorem in parameters and present coordinates.
        value, slope = self._conditional_and_slope(y, given)
        y = y - (value - target) / slope.detach()
        return self._log_t(torch.where(none, target, y))

    @torch.no_grad()
    def _solve(self, given: _Given, target: Tensor) -> Tensor:
        """Newton's method kept inside a shrinking bracket; a point that has settled stays."""
        finfo = torch.finfo(target.dtype)
        low = torch.full_like(target, math.log(finfo.tiny))
        high = torch.full_like(target, math.log(-math.log(finfo.tiny)))
        y = target.clamp(low, high)
        size = torch.full_like(y, torch.inf)
        done = given.order == 0
        for _ in range(_SOLVER_STEPS):
            value, slope = self._conditional_and_slope(y, given)
            below = value < target
            low, high = torch.where(below, y, low), torch.where(below, high, y)
            # Out of these bounds the step is bisected anyway.
            newton = y - (value - target) / slope.clamp(1e-6, 1e6)
            # A step as small as this is the last: beyond it, rounding decides on which side y lies.
            close = finfo.eps**0.75 * (1 + y.abs())
            settled, done = done, done | ((newton - y).abs() <= close) | (high - low <= close)
            # Bisection where Newton leaves the bracket or does not halve its steps (rtsafe).
            good = (newton > low) & (newton < high) & ((newton - y).abs() <= size / 2)
            step = torch.where(done | good, newton.clamp(low, high), (low + high) / 2)
            step = torch.where(settled, y, step)
            y, size = step, (step - y).abs()
            if done.all():
                break
        return y

    def _given(self, log_sum: Tensor, order: Tensor) -> _Given:
        at_sum = self.log_derivative(log_sum, order)
        return _Given(log_sum, order, at_sum, self._log_hazard(log_sum, order, at_sum))

    def _log_hazard(self, log_t: Tensor, order: Tensor, log_derivative: Tensor) -> Tensor:
        r""":math:`\log -\partial_t \log (-1)^k \psi^{(k)}(t)`."""
        return self.log_derivative(log_t, (order + 1).clamp_max(self.dim)) - log_derivative

    def _conditional(self, log_t: Tensor, given: _Given) -> tuple[Tensor, Tensor]:
        """``log(-log F)`` at ``log t``, and the log hazard there."""
        total = torch.logaddexp(given.log_sum, log_t)
        at_total = self.log_derivative(total, given.order)
        log_hazard = self._log_hazard(total, given.order, at_total)
        # -log F is a difference of log derivatives; where t is small beside t_O that would cancel,
        # and the integral of the hazard from t_O to t_O + t by the trapezoidal rule takes its
        # place.
        eps = torch.finfo(log_t.dtype).eps
        near = log_t - given.log_sum < math.log(eps) / 3
        trapezoid = log_t + torch.logaddexp(log_hazard, given.log_hazard) - math.log(2.0)
        difference = torch.where(near, 1.0, given.at_sum - at_total).clamp_min(eps)
        return torch.where(near, trapezoid, difference.log()), log_hazard

    def _conditional_and_slope(self, y: Tensor, given: _Given) -> tuple[Tensor, Tensor]:
        """``log(-log F)`` at ``y = log(-log u)``, and its slope in ``y``."""
        log_t = self._log_t(y)
        value, log_hazard = self._conditional(log_t, given)
        log_dt_dy = y - y.exp() - self.log_derivative(log_t, 1)
        return value, (log_hazard + log_dt_dy - value).exp()

    def _log_t(self, y: Tensor) -> Tensor:
        unit = Unit(-y.exp(), log_cloglog(y))
        return self.log_inverse(unit.map(lambda part: part[..., None])).squeeze(-1)


def _present_sum(log_t: Tensor, present: Tensor) -> Tensor:
    """``log`` of the sum of ``t`` over the present coordinates; ``-inf`` where there is none."""
    none = ~present.any(-1)
    masked = torch.where(present, log_t, -torch.inf)
    masked = torch.where(none[..., None], 0.0, masked)
    return torch.where(none, -torch.inf, torch.logsumexp(masked, -1))
