"""A distribution with trainable parameters: one wrapper for every family.

The family's declared constraints give the map from unconstrained numbers, as in zuko's lazy
distributions (Rozet et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, biject_to

D = TypeVar("D", bound=Distribution)


class Learnable(nn.Module, Generic[D]):
    """Owns the unconstrained parameters of a distribution and returns it when called.

    Args:
        family: The class of the distribution.
        arguments: Its arguments to start from; those that it constrains become parameters, the rest
            stay as they are.

    Example:
        >>> ones = torch.ones(2)
        >>> law = Learnable(torch.distributions.Gamma, concentration=ones, rate=ones)
        >>> law().batch_shape
        torch.Size([2])
    """

    def __init__(self, family: type[D], /, **arguments: Any) -> None:
        super().__init__()
        self.family = family
        start = family(**arguments)
        constraints = start.arg_constraints
        self.options = {key: value for key, value in arguments.items() if key not in constraints}
        self._transforms = {name: biject_to(constraints[name]) for name in constraints}
        self.unconstrained = nn.ParameterDict(
            {
                # A mixture's components, say, bring parameters that are no arguments.
                name: nn.Parameter(self._inverse(name, arguments.get(name, getattr(start, name))))
                for name in constraints
            }
        )

    def forward(self, frozen: bool = False) -> D:
        """Builds the distribution.

        Args:
            frozen: Whether its parameters are constants, so that gradients pass to values only.
        """
        values = {
            name: self._transforms[name](value.detach() if frozen else value)
            for name, value in self.unconstrained.items()
        }
        return self.family(**self.options, **values, validate_args=False)

    @torch.no_grad()
    def set(self, **values: Tensor) -> None:
        """Moves parameters to these constrained values."""
        for name, value in values.items():
            self.unconstrained[name].copy_(self._inverse(name, value))

    def _inverse(self, name: str, value: Tensor) -> Tensor:
        return self._transforms[name].inv(value).detach().clone()


def minimize(parameters: Iterable[nn.Parameter], loss: Callable[[], float], steps: int) -> None:
    """L-BFGS with a line search; ends at the best point that it saw."""
    free = [p for p in parameters if p.numel()]
    if not free or steps == 0:
        return
    optimizer = torch.optim.LBFGS(
        free,
        max_iter=steps,
        tolerance_change=1e-8,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )
    best, best_loss = [p.detach().clone() for p in free], float("inf")

    def closure() -> float:
        nonlocal best, best_loss
        optimizer.zero_grad()
        value = loss()
        if value < best_loss:
            best, best_loss = [p.detach().clone() for p in free], value
        return value

    optimizer.step(closure)
    with torch.no_grad():
        for parameter, value in zip(free, best, strict=True):
            parameter.copy_(value)
            parameter.grad = None
