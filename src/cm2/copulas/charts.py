"""Coordinates on a family for estimation: unconstrained numbers, and the parameters people read.

A chart maps a flat vector of unconstrained numbers to a copula, through the bijections of torch
for the constraints that the family declares, and to its natural parameters, in which standard
errors are reported: each parameter as it is, of a correlation matrix the entries below the
diagonal, of weights all but the last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from cm2.copulas.base import Copula

# Beyond these no family differs from its limit by what data can show: exp(-20) and exp(14), and
# correlations given others that are 4e-9 from 1 (tanh).
_RANGE = (-20.0, 14.0)
_CORRELATIONS = (-10.0, 10.0)
# The logistic function comes within 2e-9 of both its ends.
_INTERVAL = (-20.0, 20.0)


class Chart(ABC):
    """Unconstrained coordinates of a family.

    Attributes:
        start: Where to start, of shape ``(parameter,)``.
        names: Names of the natural parameters.
        lower: Ends of the natural parameters' ranges that are independence or another limit
            (``-inf`` where there is none).
        low: Least unconstrained numbers; smaller ones stand for these.
        high: Greatest ones.
    """

    start: Tensor
    names: tuple[str, ...]
    lower: Tensor
    low: Tensor
    high: Tensor

    @abstractmethod
    def copula(self, x: Tensor) -> Copula:
        """The copula at these unconstrained numbers."""

    @abstractmethod
    def natural(self, x: Tensor) -> Tensor:
        """Its natural parameters, as many as ``x`` has numbers."""


class Declared(Chart):
    """The chart that the family's declared constraints give.

    Args:
        copula: A member of the family, from which to start.
    """

    def __init__(self, copula: Copula) -> None:
        self._template = copula
        self._parts = [
            (name, biject_to(copula.arg_constraints[name]), copula.arg_constraints[name])
            for name in copula.parameters
        ]
        flat, names, lower = [torch.zeros(0).double()], [], [torch.zeros(0).double()]
        low, high = [], []
        self._shapes = []
        for name, transform, constraint in self._parts:
            x = transform.inv(copula.parameters[name].detach().double())
            self._shapes.append(x.shape)
            flat.append(x.flatten())
            ends = _ends(constraint)
            low += [ends[0]] * x.numel()
            high += [ends[1]] * x.numel()
            labels = _labels(name, constraint, copula)
            names += labels
            end = getattr(constraint, "lower_bound", -torch.inf)
            lower.append(torch.full((len(labels),), end, dtype=torch.float64))
        self.start = torch.cat([part.to(flat[-1].device) for part in flat])
        self.names = tuple(names)
        self.lower = torch.cat(lower).to(self.start.device)
        self.low, self.high = (self.start.new_tensor(ends) for ends in (low, high))

    def copula(self, x: Tensor) -> Copula:
        return self._template._like(self._values(x))

    def natural(self, x: Tensor) -> Tensor:
        values = self._values(x)
        parts = [
            _natural(values[name], constraint).flatten() for name, _, constraint in self._parts
        ]
        return torch.cat([x[:0], *parts])

    def _values(self, x: Tensor) -> dict[str, Tensor]:
        pieces = x.clamp(self.low, self.high).split([shape.numel() for shape in self._shapes])
        return {
            name: transform(piece.view(shape))
            for (name, transform, _), piece, shape in zip(
                self._parts, pieces, self._shapes, strict=True
            )
        }


class Exchangeable(Chart):
    """An elliptical family with one correlation for every two coordinates.

    Args:
        copula: A member of the family, with parameters ``scale_tril`` and perhaps others.
    """

    def __init__(self, copula: Copula) -> None:
        self._inner = Declared(copula)
        self._eye = torch.eye(copula.dim, dtype=torch.float64, device=self._inner.start.device)
        size = copula.dim * (copula.dim - 1) // 2
        low = -1 / (copula.dim - 1)
        self._transform = biject_to(constraints.interval(low, 1.0))
        scale_tril = copula.parameters["scale_tril"].detach().double()
        correlation = scale_tril @ scale_tril.mT
        mean = (correlation.sum() - copula.dim) / (2 * size)
        self._rest = size  # the unconstrained numbers of scale_tril come first
        self.start = torch.cat([self._transform.inv(mean)[None], self._inner.start[size:]])
        self.names = ("correlation", *self._inner.names[size:])
        self.lower = torch.cat([mean.new_full((1,), -torch.inf), self._inner.lower[size:]])
        self.low, self.high = (
            torch.cat([mean.new_tensor([end]), rest[size:]])
            for end, rest in zip(_INTERVAL, (self._inner.low, self._inner.high), strict=True)
        )

    def copula(self, x: Tensor) -> Copula:
        rho = self._transform(x[0].clamp(*_INTERVAL))
        matrix = self._eye + rho * (1 - self._eye)
        values = self._inner._values(torch.cat([x.new_zeros(self._rest), x[1:]]))
        template = self._inner._template
        return template._like({**values, "scale_tril": torch.linalg.cholesky(matrix)})

    def natural(self, x: Tensor) -> Tensor:
        rest = self._inner.natural(torch.cat([x.new_zeros(self._rest), x[1:]]))[self._rest :]
        return torch.cat([self._transform(x[0].clamp(*_INTERVAL))[None], rest])


def _ends(constraint: constraints.Constraint) -> tuple[float, float]:
    """The range of the unconstrained numbers of a parameter."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint is constraints.real:
        return -torch.inf, torch.inf
    return _CORRELATIONS if constraint is constraints.corr_cholesky else _RANGE


def _below(dim: int) -> tuple[list[int], list[int]]:
    rows, columns = torch.tril_indices(dim, dim, -1).tolist()
    return rows, columns


def _labels(name: str, constraint: constraints.Constraint, copula: Copula) -> list[str]:
    value = copula.parameters[name]
    if constraint is constraints.corr_cholesky:
        label = name.replace("scale_tril", "correlation")
        return [f"{label}[{i}, {j}]" for i, j in zip(*_below(copula.dim), strict=True)]
    if value.dim() == 0:
        return [name]
    if value.dim() == 2:
        return [f"{name}[{i}, {j}]" for i, j in np.ndindex(*value.shape)]
    size = value.numel() - (constraint is constraints.simplex)
    return [f"{name}[{i}]" for i in range(size)]


def _natural(value: Tensor, constraint: constraints.Constraint) -> Tensor:
    if constraint is constraints.corr_cholesky:
        return (value @ value.mT)[_below(value.shape[-1])]
    return value[:-1] if constraint is constraints.simplex else value
