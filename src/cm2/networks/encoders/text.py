"""A language model over documents of any length, read in chunks.

Sources: Jiao et al. (2020), TinyBERT, https://arxiv.org/abs/1909.10351 (4 layers, 312 wide);
attention pooling as in Yang et al. (2016), Hierarchical attention networks for document
classification, equations 8 to 10, https://aclanthology.org/N16-1174.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cm2.core.records import Padded, Steps
from cm2.networks.encoders import pretrained
from cm2.networks.encoders.base import Encoder, Staged, check_codes, register, regular, stepped
from cm2.networks.encoders.projection import Projection

POOLINGS = ("attention", "mean")

BERT_VOCABULARY = 30522

SPARE = 1024
"""A model's vocabulary may be rounded up from its tokenizer's, by less than this."""


@register("text")
class Text(Encoder):
    """A language model on each real chunk, pooled over tokens and then over chunks.

    A chunk is the mean of its real tokens' last states. A document is the mean of its chunks, or
    their mean weighted by attention; one without any chunk is zeros. Chunks of padding are not
    computed. Its steps are its chunks.

    Args:
        dim: Width of the embedding.
        weights: Folder or hub name of a text model for ``transformers``, such as
            ``"huawei-noah/TinyBERT_General_4L_312D"``; ``None`` starts TinyBERT at random.
        pooling: ``"attention"`` or ``"mean"``, over chunks.
        vocabulary: Number of different tokens; that of BERT if ``None``. With ``weights`` it is
            checked only: the tokens must come from the tokenizer with which they were trained.
        architecture: What the language model is built of, at random, in the place of ``weights``:
            the configuration of ``transformers`` as a dictionary, such as that of
            :meth:`architecture`.
        width: Width of a token's state, when neither is given; so the next three.
        layers: Number of layers.
        heads: Number of attention heads.
        tokens: Largest number of tokens in a chunk.
        dropout: Probability of dropping a pooled feature.
        frozen: Whether the language model stays as it is; attention over chunks is trained.

    Example:
        >>> encoder = Text(dim=4, vocabulary=9, width=8, layers=1, heads=2)
        >>> notes = Padded(torch.ones(2, 3, 5).long(), torch.ones(2, 3, 5).bool())
        >>> encoder(notes).shape
        torch.Size([2, 4])
    """

    timed: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        weights: str | Path | None = None,
        pooling: str = "attention",
        vocabulary: int | None = None,
        architecture: dict[str, Any] | None = None,
        width: int = 312,
        layers: int = 4,
        heads: int = 12,
        tokens: int = 512,
        dropout: float = 0.1,
        frozen: bool = False,
    ) -> None:
        super().__init__(dim)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}, but is {pooling!r}")
        package = pretrained.transformers()
        pretrained.one_of(weights, architecture)
        if architecture is not None:
            body: Any = pretrained.build(architecture)
        elif weights is not None:
            body = pretrained.load(package.AutoModel, weights, unused=("pooler",))
        else:
            config = package.BertConfig(
                vocab_size=BERT_VOCABULARY if vocabulary is None else vocabulary,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width if width != 312 else 1200,  # 1200 is TinyBERT's
                max_position_embeddings=tokens,
            )
            body = package.BertModel(config, add_pooling_layer=False)
        # A pooling layer that nothing reads would be a parameter without a gradient.
        if getattr(body, "pooler", None) is not None:
            body.pooler = None
        source = "the architecture" if weights is None else f"the weights in {weights}"
        if getattr(body.config, "vocab_size", None) is None:
            raise ValueError(f"{source}: a {type(body).__name__}, which is no text model")
        spare = body.config.vocab_size - (vocabulary or body.config.vocab_size)
        if not 0 <= spare < SPARE:
            raise ValueError(
                f"the tokens come from a vocabulary of {vocabulary}, but that of {source} has "
                f"{body.config.vocab_size}: use their tokenizer"
            )
        self.body: nn.Module = body
        self.width = int(body.config.hidden_size)
        self.vocabulary = int(body.config.vocab_size)
        self.tokens = int(getattr(body.config, "max_position_embeddings", 0)) or None
        if frozen:
            self.freeze()  # the body alone: what follows is trained
        self.projection = Projection(self.width, dim, dropout)
        self.score = nn.Linear(self.width, 1, bias=False) if pooling == "attention" else None

    def architecture(self) -> dict[str, Any]:
        """The language model's configuration, in the place of its weights."""
        return {"weights": None, "architecture": pretrained.describe(self.body)}

    def forward(self, x: Padded) -> Float[Tensor, "row dim"]:
        """Embeds token numbers with their masks."""
        return self.pooled(*self.documents(x))

    @property
    def stages(self) -> tuple[int, ...]:
        """Width of the chunks' states; there is one stage, the language model."""
        return (self.width,)

    def staged(self, x: Padded) -> Staged:
        """Embeds in one stage, whose places are the chunks."""
        states, real = self.documents(x)
        changed = yield states, real
        return self.pooled(changed, real)

    def pooled(
        self, states: Float[Tensor, "row chunk feature"], real: Bool[Tensor, "row chunk"]
    ) -> Float[Tensor, "row dim"]:
        """Embeds documents, given the states of their chunks."""
        share = (real / real.sum(dim=1, keepdim=True).clamp_min(1)).to(states.dtype)
        if self.score is not None:
            score = self.score(states).squeeze(-1).masked_fill(~real, -torch.inf)
            some = real.any(dim=1, keepdim=True)
            share = torch.where(some, score, 0.0).softmax(dim=1) * some
        out: Tensor = self.projection(torch.einsum("bc,bcf->bf", share.to(states.dtype), states))
        return out

    def steps(self, x: Padded, hours: Float[Tensor, "row ..."] | None = None) -> Steps:
        """Embeds each chunk; its hour is its number where no hours are given."""
        states, real = self.documents(x)
        return stepped(self.projection(states), real, regular(real) if hours is None else hours)

    def unpooled(self) -> Self:
        """Drops the attention over chunks; their mean is left to pool by."""
        self.score = None
        return self

    def documents(
        self, x: Padded
    ) -> tuple[Float[Tensor, "row chunk feature"], Bool[Tensor, "row chunk"]]:
        """Returns a state of each chunk, zeros where there is none, and which chunks are real."""
        ids, mask = x
        if ids.dim() != 3 or mask.shape != ids.shape:
            raise ValueError(
                "token numbers and their mask need one shape (rows, chunks, tokens), "
                f"but have {tuple(ids.shape)} and {tuple(mask.shape)}"
            )
        if self.tokens is not None and ids.shape[2] > self.tokens:
            raise ValueError(
                f"the model reads at most {self.tokens} tokens a chunk, but got {ids.shape[2]}"
            )
        check_codes(ids, mask, self.vocabulary)
        real = mask.any(dim=-1)
        chunks = self.chunks(ids[real], mask[real])
        states = chunks.new_zeros(*real.shape, chunks.shape[-1])
        return states.masked_scatter(real.unsqueeze(-1), chunks), real

    def chunks(
        self, ids: Int[Tensor, "chunk token"], mask: Bool[Tensor, "chunk token"]
    ) -> Float[Tensor, "chunk feature"]:
        """Averages the last states of each chunk's real tokens."""
        if len(ids) == 0:
            return self.projection.linear.weight.new_zeros(0, self.width)
        longest = int((mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax())
        ids, mask = ids[:, :longest], mask[:, :longest]
        states: Tensor = self.body(
            input_ids=torch.where(mask, ids, 0), attention_mask=mask.long()
        ).last_hidden_state
        kept = torch.where(mask.unsqueeze(-1), states, 0.0)
        return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True)
