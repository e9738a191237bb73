"""What makes logits of the fused vector."""

from __future__ import annotations

from torch import nn

from cm2.core.registry import Registry

REGISTRY: Registry[nn.Module] = Registry("classifier")
register = REGISTRY.register


@register("mlp")
class MLP(nn.Sequential):
    """One hidden layer on the normalised vector.

    Args:
        dim: Width of the fused vector.
        labels: Number of logits.
        width: Width of the hidden layer.
        dropout: Probability of dropping a fused or hidden unit.
    """

    def __init__(self, dim: int, labels: int, *, width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            nn.Dropout(dropout),
            nn.Linear(dim, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, labels),
        )


@register("linear")
class Linear(nn.Sequential):
    """The paper's: one linear layer.

    Args:
        dim: Width of the fused vector.
        labels: Number of logits.
        width: Not used.
        dropout: Probability of dropping a fused unit.
    """

    def __init__(self, dim: int, labels: int, *, width: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(dim, labels))
