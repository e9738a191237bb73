"""A distribution with trainable parameters: one wrapper for every family.

The family's declared constraints give the map from unconstrained numbers, as in zuko's lazy
distributions (Rozet et al. 2022).
"""

from __future__ import annotations

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
