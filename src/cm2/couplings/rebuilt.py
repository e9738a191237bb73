"""A joint law made again of changed parts: in double precision, or for some rows of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from cm2.marginals import GaussianMixture

if TYPE_CHECKING:
    from cm2.couplings.base import Joint


def in_double(joint: Joint) -> Joint:
    """Returns the same law in double precision."""
    given, copula = joint.marginals, joint.copula
    logits, loc, scale = (part.double() for part in (given.logits, given.loc, given.scale))
    if copula.parameters:
        copula = copula._like({name: v.double() for name, v in copula.parameters.items()})
    return type(joint)(copula, GaussianMixture(logits, loc, scale, validate_args=False))


def of_rows(joint: Joint, rows: Int[Tensor, " row"]) -> Joint:
    """Returns the law of some rows, which is the law itself unless marginals differ by row."""
    if len(joint.marginals.batch_shape) == 1:
        return joint
    return type(joint)(joint.copula, joint.marginals[rows])
