"""Flex-MoE: a bank of embeddings for what is missing, and experts for combinations of modalities.

Source: Yun, Choi, Peng, Wu, Bao, Zhang, Xin, Long, Chen (2024), Flex-MoE: modeling arbitrary
modality combination via the flexible mixture-of-experts, NeurIPS, section 3,
https://arxiv.org/abs/2410.08245, and its code, https://github.com/UNITES-Lab/flex-moe. Noisy gates:
Shazeer et al. (2017), Outrageously large neural networks, https://arxiv.org/abs/1701.06538.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.attention import Attention, hidden
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register, single_precision

MOST_MODALITIES = 12
"""Beyond so many the bank, with a place for each combination, is too large."""

LEAST_NOISE = 1e-2
"""The least deviation of the noise of a gate in training."""


@register("flex-moe")
class FlexMoE(Model):
    """Classifies tokens of all modalities after a Transformer layer of sparsely gated experts.

    A modality that is missing has learned tokens that depend on which modalities the row has (the
    missing modality bank). In the layer all tokens attend to each other, and each then goes to a
    few experts, weighted by a gate. Rows with all modalities teach all experts alike, by a loss
    that balances their use (G-router). For other rows the gate also learns, by cross-entropy, to
    choose the expert of the row's combination (S-router), and balances the others. Both losses are
    the penalty ``routing``. With more than one layer, every second one has a dense hidden layer.

    The gate, its choices and its losses in training are those of the authors' code from the same
    weights and noise, to 1e-5. Unlike it: attention is added to what entered the layer, where the
    code adds it to itself and so loses the tokens; gates start near to zero rather than at zero,
    where the choice is a tie. A row without any modality is a combination too. Where there are more
    combinations than experts, several share one. Training does not begin with complete rows only,
    which would need an order of batches of its own.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; at most 12.
        labels: Number of logits.
        depth: Number of layers.
        heads: Number of attention heads.
        experts: Number of experts.
        top: How many of them a token goes to.
        patches: Number of tokens that an embedding is cut into; 16 in the source.
        balance: Weight of the penalty ``routing``.
        dropout: Probability of dropping an attention weight or a hidden unit; 0.5 in the source.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = FlexMoE({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        depth: int = 1,
        heads: int = 4,
        experts: int = 16,
        top: int = 4,
        patches: int = 4,
        balance: float = 1e-2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        count, dim = len(encoders), self.dim
        if count > MOST_MODALITIES:
            raise ValueError(
                f"flex-moe has a bank for each combination of at most {MOST_MODALITIES} "
                f"modalities, but there are {count}"
            )
        if not 1 <= top < experts:
            raise ValueError(
                f"top must be at least 1 and below the number of experts, but is {top} of {experts}"
            )
        if min(depth, patches) < 1:
            raise ValueError(f"depth and patches must be at least 1, but are {depth} and {patches}")
        self.balance = balance
        self.cut = nn.ModuleList(Cut(dim, patches) for _ in encoders)
        self.bank = nn.Parameter(torch.randn(2**count - 1, count, patches, dim))
        self.place = nn.Parameter(torch.zeros(count, patches, dim))
        self.layers = nn.ModuleList(
            Layer(dim, heads, experts if number % 2 == 0 else 0, top, dropout)
            for number in range(depth)
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(count * dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the mean token of each modality, and the losses of the gates."""
        z, present = self.raw(batch), batch.present
        code = combination(present)
        there = torch.stack([cut(z[:, column]) for column, cut in enumerate(self.cut)], dim=1)
        # A complete row has no place in the bank, and reads none.
        filling = self.bank[code.clamp_max(len(self.bank) - 1)]
        x = torch.where(present[..., None, None], there, filling) + self.place
        losses = [x.new_zeros(())]
        for layer in self.layers:
            x, loss = layer(x, code, present.all(dim=1))
            losses.append(loss)
        routing = self.balance * torch.stack(losses).sum()
        return Output(self.classifier(x.mean(dim=2).flatten(1)), {"routing": routing}, {})


class Cut(nn.Module):
    """Cuts an embedding into parts, and maps each of them to a token by the same map.

    Args:
        dim: Width of the embedding and of a token.
        patches: Number of tokens.
    """

    def __init__(self, dim: int, patches: int) -> None:
        super().__init__()
        self.patches = patches
        self.width = -(-dim // patches)
        self.map = nn.Linear(self.width, dim)

    def forward(self, z: Float[Tensor, "row dim"]) -> Float[Tensor, "row patch dim"]:
        """Returns the tokens; what is beyond the end of the embedding is zeros."""
        padded = F.pad(z, (0, self.patches * self.width - z.shape[1]))
        out: Tensor = self.map(padded.unflatten(1, (self.patches, self.width)))
        return out


class Layer(nn.Module):
    """Attention among all tokens of a row, and experts or one hidden layer for each of them.

    Args:
        dim: Width of a token.
        heads: Number of attention heads.
        experts: Number of experts; zero for one hidden layer.
        top: How many experts a token goes to.
        dropout: Probability of dropping an attention weight or a hidden unit.
    """

    def __init__(self, dim: int, heads: int, experts: int, top: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads=heads, dropout=dropout, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim) if experts else None
        self.experts = Experts(dim, experts, top) if experts else None
        self.dense = None if experts else hidden(dim, 2 * dim, nn.GELU(), dropout)

    def forward(
        self,
        x: Float[Tensor, "row modality patch dim"],
        code: Int[Tensor, " row"],
        full: Bool[Tensor, " row"],
    ) -> tuple[Float[Tensor, "row modality patch dim"], Float[Tensor, ""]]:
        """Returns the tokens after the layer, and the losses of the gate over all modalities."""
        read = self.before(x.flatten(1, 2))
        told = self.attention(read, read, torch.ones_like(read[..., 0], dtype=torch.bool))
        x = x + self.dropout(told).view_as(x)
        loss = x.new_zeros((), dtype=torch.float32)
        if self.dense is not None:
            return x + self.dense(x), loss
        parts = []
        for part in self.norm(x).unbind(dim=1):  # type: ignore[misc]
            each = part.shape[1]
            given = part.flatten(0, 1), code.repeat_interleave(each), full.repeat_interleave(each)
            found, more = self.experts(*given)  # type: ignore[misc]
            parts.append(found.view_as(part))
            loss = loss + more
        return x + self.dropout(torch.stack(parts, dim=1)), loss


class Choice(NamedTuple):
    """What a gate says of each token.

    Attributes:
        logits: Scores of experts, with noise in training.
        gates: Weights of experts, zero for all that are not chosen.
        load: How likely each expert is to be chosen, or in evaluation whether it is.
    """

    logits: Float[Tensor, "token expert"]
    gates: Float[Tensor, "token expert"]
    load: Float[Tensor, "token expert"]


class Experts(nn.Module):
    """Hidden layers of which each token goes to a few.

    Args:
        dim: Width of a token.
        experts: Number of hidden layers, each of twice the width.
        top: How many a token goes to.
    """

    def __init__(self, dim: int, experts: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.gate = nn.Parameter(torch.randn(dim, experts) * 0.01)
        self.noise = nn.Parameter(torch.zeros(dim, experts))
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
            for _ in range(experts)
        )

    def forward(
        self,
        x: Float[Tensor, "token dim"],
        code: Int[Tensor, " token"],
        full: Bool[Tensor, " token"],
    ) -> tuple[Float[Tensor, "token dim"], Float[Tensor, ""]]:
        """Returns what the chosen experts make of each token, and the losses of the gate."""
        with single_precision(x):
            choice = self.choose(x.float())
            loss = self.losses(choice, code, full)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = choice.gates[:, number].nonzero().squeeze(1)
            share = choice.gates[rows, number].unsqueeze(1)
            out = out.index_add(0, rows, (share * expert(x[rows])).to(out))
        return out, loss

    def choose(self, x: Float[Tensor, "token dim"]) -> Choice:
        """Weighs the best experts of each token, in training after noise of a learned size."""
        clean = x @ self.gate
        if not self.training:
            best, which = clean.topk(self.top, dim=1)
            gates = torch.zeros_like(clean).scatter(1, which, best.softmax(dim=1))
            return Choice(clean, gates, (gates > 0).to(clean))
        deviation = F.softplus(x @ self.noise) + LEAST_NOISE
        noisy = clean + torch.randn_like(clean) * deviation
        best, which = noisy.topk(self.top + 1, dim=1)
        gates = torch.zeros_like(clean).scatter(
            1, which[:, : self.top], best[:, : self.top].softmax(dim=1)
        )
        # What a score has to exceed, were its own noise drawn again.
        rival = torch.where(noisy > best[:, -1:], best[:, -1:], best[:, -2:-1])
        return Choice(noisy, gates, torch.special.ndtr((clean - rival) / deviation))

    def losses(
        self, choice: Choice, code: Int[Tensor, " token"], full: Bool[Tensor, " token"]
    ) -> Float[Tensor, ""]:
        """Returns how uneven experts are, and how far from the expert of its combination a row is.

        The first expert is that of complete rows; the others balance all rows but those.
        """
        loss = choice.logits.new_zeros(())
        for rows, first in ((full, 0), (~full, 1)):
            share = rows.unsqueeze(1).to(choice.gates)
            for use in (choice.gates, choice.load):
                loss = loss + uneven((use * share).sum(dim=0)[first:])
        wanted = 1 + code % (len(self.experts) - 1)
        missed = F.cross_entropy(choice.logits, wanted, reduction="none") * ~full
        return loss + missed.sum() / (~full).sum().clamp_min(1)


def combination(present: Bool[Tensor, "row modality"]) -> Int[Tensor, " row"]:
    """Numbers the combinations of modalities; the last one is all of them."""
    powers = 2 ** torch.arange(present.shape[1], device=present.device)
    return (present * powers).sum(dim=1)


def uneven(use: Float[Tensor, " expert"]) -> Float[Tensor, ""]:
    """Variance over squared mean, zero for one expert."""
    if len(use) < 2:
        return use.new_zeros(())
    return use.var() / (use.mean().square() + 1e-10)
