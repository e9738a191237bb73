"""Attention over steps of which some are padding, and what tells steps apart by their hours.

Source: Vaswani et al. (2017), Attention is all you need, https://arxiv.org/abs/1706.03762, with
normalisation before each part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

LONGEST = 10_000.0
"""Ratio of the longest wave of ``sinusoids`` to the shortest."""


class Attention(nn.Module):
    """Attention with several heads, from each step to the real steps of a context.

    A row whose context has no real step gets zeros. Keys have no bias, since the softmax does not
    see one.

    Args:
        dim: Width of the steps that ask, and of what they are told.
        context: Width of the steps that are asked; ``dim`` if ``None``.
        heads: Number of heads.
        width: Width of a head; the least at which all of them together have ``dim``, if ``None``.
        dropout: Probability of dropping an attention weight.
        bias: Whether queries and values have one.
        temperature: What the softmax divides scores by, beside the root of the width of a head.
    """

    def __init__(
        self,
        dim: int,
        context: int | None = None,
        *,
        heads: int,
        width: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"attention needs at least one head, but heads is {heads}")
        inner = heads * (-(-dim // heads) if width is None else width)
        context = dim if context is None else context
        self.heads = heads
        self.dropout = dropout
        self.scale = 1 / (temperature * math.sqrt(inner // heads))
        self.query = nn.Linear(dim, inner, bias=bias)
        self.key = nn.Linear(context, inner, bias=False)
        self.value = nn.Linear(context, inner, bias=bias)
        self.out = nn.Linear(inner, dim)
        for part in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(part.weight)

    def forward(
        self,
        x: Float[Tensor, "row step dim"],
        context: Float[Tensor, "row other feature"],
        mask: Bool[Tensor, "row other"],
    ) -> Float[Tensor, "row step dim"]:
        """Returns what each step is told; what stands in padding of the context is not read."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        told = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=readable(mask)[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        out: Tensor = self.out(told.transpose(1, 2).flatten(2))
        return out * mask.any(dim=1)[:, None, None]


def readable(mask: Bool[Tensor, "row step"]) -> Bool[Tensor, "row step"]:
    """Counts a row without a real step as one with all, whose softmax is then defined."""
    return mask | ~mask.any(dim=1, keepdim=True)


def hidden(dim: int, width: int, activation: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    """A hidden layer on normalised steps.

    Args:
        dim: Width of a step.
        width: Width of the layer.
        activation: What follows the first map.
        dropout: Probability of dropping a unit of the layer, and of what it gives.
    """
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, width),
        activation,
        nn.Dropout(dropout),
        nn.Linear(width, dim),
        nn.Dropout(dropout),
    )


class Gated(nn.Module):
    """One half of the units times an activation of the other.

    Source: Shazeer (2020), GLU variants improve transformer, https://arxiv.org/abs/2002.05202.

    Args:
        activation: Of the half that gates.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Float[Tensor, "*step double"]) -> Float[Tensor, "*step single"]:
        """Returns half as many units."""
        value, gate = x.chunk(2, dim=-1)
        out: Tensor = value * self.activation(gate)
        return out


def gated(dim: int, activation: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    """A gated hidden layer of four times the width, on normalised vectors."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 8 * dim),
        Gated(activation),
        nn.Linear(4 * dim, dim),
        nn.Dropout(dropout),
    )


class Block(nn.Module):
    """Attention and a hidden layer, each added to the steps that it reads normalised.

    Args:
        dim: Width of a step.
        context: Width of the steps to which attention goes; its own, if ``None``.
        heads: Number of heads.
        width: Width of a head; see ``Attention``.
        then: The hidden layer, such as that of ``hidden``.
        dropout: Probability of dropping an attention weight, and of what attention gives.
        bias: Whether queries and values have a bias.
    """

    def __init__(
        self,
        dim: int,
        context: int | None = None,
        *,
        heads: int,
        then: nn.Module,
        width: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.before = nn.LayerNorm(dim)
        self.before_context = None if context is None else nn.LayerNorm(context)
        self.attention = Attention(
            dim, context, heads=heads, width=width, dropout=dropout, bias=bias
        )
        self.dropout = nn.Dropout(dropout)
        self.then = then

    def forward(
        self,
        x: Float[Tensor, "row step dim"],
        mask: Bool[Tensor, "row other"],
        context: Float[Tensor, "row other feature"] | None = None,
    ) -> Float[Tensor, "row step dim"]:
        """Returns the steps after both parts.

        Args:
            x: The steps.
            mask: Which steps of the context are real.
            context: Steps to which attention goes; ``x`` itself in a block that was built so.
        """
        read = self.before(x)
        if self.before_context is None or context is None:
            context = read
        else:
            context = self.before_context(context)
        x = x + self.dropout(self.attention(read, context, mask))
        out: Tensor = x + self.then(x)
        return out


def mean_of(
    values: Float[Tensor, "row step dim"], mask: Bool[Tensor, "row step"]
) -> Float[Tensor, "row dim"]:
    """Averages over real steps; zeros for a row that has none."""
    share = mask.unsqueeze(-1).to(values.dtype)
    return (values * share).sum(dim=1) / share.sum(dim=1).clamp_min(1)


def sinusoids(place: Float[Tensor, "*step"], width: int) -> Float[Tensor, "*step width"]:
    """Waves of many lengths at each place, which may be any number, such as an hour.

    At whole numbers these are the encodings of positions of Vaswani et al., section 3.5.

    Example:
        >>> sinusoids(torch.arange(3.0), 5).shape
        torch.Size([3, 5])
    """
    pairs = torch.arange(0, width, 2, device=place.device) / width
    angle = place.unsqueeze(-1) / LONGEST**pairs
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :width]


def fourier(
    place: Float[Tensor, "*step"], bands: int, fastest: float
) -> Float[Tensor, "*step wave"]:
    """Sines and cosines of each place, which is from -1 to 1, and the place itself.

    Source: Jaegle, Gimeno, Brock, Zisserman, Vinyals, Carreira (2021), Perceiver: general
    perception with iterative attention, section 3.2, https://arxiv.org/abs/2103.03206.

    Args:
        place: Where.
        bands: Number of frequencies.
        fastest: The largest of them, in half turns; the least is one.
    """
    place = place.unsqueeze(-1)
    angle = place * torch.linspace(1.0, fastest, bands, device=place.device) * math.pi
    return torch.cat([angle.sin(), angle.cos(), place], dim=-1)
