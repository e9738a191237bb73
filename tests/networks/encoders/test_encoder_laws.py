"""Laws of every registered encoder, on tiny ones; and what the pretrained ones read."""

import copy
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cm2.core.records import Padded
from cm2.networks import encoders
from cm2.networks.encoders import (
    CodeBag,
    Encoder,
    Image,
    Precomputed,
    Series,
    Text,
    ViT,
    pretrained,
)
from cm2.networks.encoders.sections import build
from cm2.networks.models import encode_present
from laws import FLOAT32
from small_clinical import CASES, encoder, inputs, rows_of, spoiled, tiny_text

kinds = pytest.mark.parametrize("kind", sorted(CASES))
FREEZABLE = ["codes", "image", "series", "text", "transformer", "vit"]
SEQUENCES = ["codes", "series", "text", "transformer"]
IMAGES = ["image", "vit"]
NUMBERS = ["series", "transformer"]


def test_every_encoder_has_a_case() -> None:
    assert set(CASES) == set(encoders.REGISTRY)


@kinds
@pytest.mark.parametrize("rows", [1, 6])
def test_shapes_and_gradients(kind: str, rows: int) -> None:
    """A batch of one works in training, batch statistics included."""
    model = encoder(kind)
    z = model(inputs(kind, rows))
    assert z.shape == (rows, 4)
    assert z.dtype == torch.float32
    assert z.square().mean(-1).sqrt().max() <= 3.0
    (z * torch.randn_like(z)).sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name


@kinds
def test_a_gradient_reaches_every_parameter(kind: str) -> None:
    model = encoder(kind)
    z = model(inputs(kind, 30))
    (z * torch.randn_like(z)).sum().backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not dead


@kinds
def test_overfits_eight_rows(kind: str) -> None:
    """With a linear classifier behind it."""
    model, x = encoder(kind), inputs(kind, 8, seed=4)
    if kind in IMAGES:  # of the middle alone: training looks at another crop every time
        model.eval()
    head = torch.nn.Linear(4, 2)
    target = torch.arange(8) % 2
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=3e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(model(x)), target).backward()
        optimizer.step()
    right = head(model.eval()(x)).softmax(dim=-1)[torch.arange(8), target]
    assert right.min() > 0.7


@kinds
def test_rows_do_not_depend_on_their_neighbours(kind: str) -> None:
    model, x = encoder(kind).eval(), inputs(kind)
    z = model(x)
    order = torch.randperm(6)
    torch.testing.assert_close(model(rows_of(x, order)), z[order], **FLOAT32)
    torch.testing.assert_close(model(rows_of(x, slice(2, 3))), z[2:3], **FLOAT32)


@kinds
def test_absent_rows_change_nothing(kind: str) -> None:
    """Neither embeddings nor gradients nor the running statistics of batch normalisation."""
    x = inputs(kind)
    present = torch.tensor([[True], [False], [True], [True], [False], [True]])
    results = []
    for given in (x, spoiled(x, ~present.squeeze(1))):
        model = encoder(kind)
        torch.manual_seed(0)
        z = encode_present({kind: model}, {kind: given}, present)
        z.square().sum().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        results.append([z.detach(), *grads, *model.state_dict().values()])
    for clean, other in zip(*results, strict=True):
        assert torch.equal(clean, other)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_padding_changes_nothing(kind: str) -> None:
    """Neither what stands in padding, nor how much of it there is."""
    model, x = encoder(kind).eval(), inputs(kind)
    z = model(x)
    mask = x.mask.unsqueeze(-1) if kind in NUMBERS else x.mask
    junk = torch.nan if kind in NUMBERS else 10_000
    spoilt = Padded(torch.where(mask, x.values, junk), x.mask)
    assert torch.equal(model(spoilt), z)
    axis = 2 if kind == "text" else 1
    if kind != "text":  # a chunk has a largest length
        longer = Padded(*(torch.cat([part, torch.zeros_like(part)], axis) for part in x))
        torch.testing.assert_close(model(longer), z, **FLOAT32)
    shorter = Padded(x.values[1:2], x.mask[1:2])
    torch.testing.assert_close(model(shorter), z[1:2], **FLOAT32)
    model.zero_grad()
    model(spoilt).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_without_a_step(kind: str) -> None:
    model, x = encoder(kind).eval(), inputs(kind)
    z = model(x)
    mask = x.mask.clone()
    mask[2] = False
    emptied = model(Padded(x.values, mask))
    assert torch.equal(emptied[[0, 1, 3, 4, 5]], z[[0, 1, 3, 4, 5]])
    nothing = model(Padded(x.values, torch.zeros_like(mask)))
    torch.testing.assert_close(nothing, emptied[2].expand(6, -1))
    without_steps = model(Padded(x.values[:, :0], mask[:, :0]))
    torch.testing.assert_close(without_steps, nothing)
    nothing.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", SEQUENCES)
def test_every_real_step_counts(kind: str) -> None:
    model, x = encoder(kind).eval(), inputs(kind)
    z = model(x)
    for place in x.mask[0].nonzero():
        values = x.values.clone()
        index = (0, *place.tolist())
        values[index] = values[index] + 1.0 if kind in NUMBERS else values[index] % 10 + 1
        assert (model(Padded(values, x.mask)) - z)[0].abs().max() > 1e-6


def test_layers_of_a_frozen_series_have_no_dropout() -> None:
    model = encoders.Series(4, features=3, width=5, layers=2, dropout=0.5, frozen=True).train()
    x = Padded(torch.randn(6, 7, 3), torch.ones(6, 7, dtype=torch.bool))

    def second() -> torch.Tensor:
        stages = model.staged(x)
        state, _ = next(stages)
        return stages.send(state)[0]

    assert torch.equal(second(), second())


@pytest.mark.parametrize("kind", FREEZABLE)
def test_frozen(kind: str) -> None:
    """The body keeps its parameters and statistics in training; the projection learns."""
    model = encoder(kind, frozen=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(2):
        model.train()
        model(inputs(kind)).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith(("projection", "score")) for name in moved)
    assert all(not child.training for child in model._frozen)
    assert model.training


def test_a_gradient_does_not_pass_through_absent_chunks() -> None:
    for pooling in ("attention", "mean"):
        model = tiny_text(4, pooling=pooling).eval()
        x = inputs("text")
        alone = Padded(x.values[:, :1], x.mask[:, :1])
        first = Padded(x.values, x.mask & (torch.arange(3) == 0).unsqueeze(-1))
        torch.testing.assert_close(model(first), model(alone), **FLOAT32)
    with pytest.raises(ValueError, match="pooling must be one of"):
        tiny_text(4, pooling="max")


def test_mean_of_chunks() -> None:
    model = tiny_text(4, pooling="mean").eval()
    ids = inputs("text").values[:1, :1].clamp_min(1)
    once = Padded(ids, torch.ones_like(ids, dtype=torch.bool))
    twice = Padded(ids.repeat(1, 2, 1), torch.ones(1, 2, 6, dtype=torch.bool))
    torch.testing.assert_close(model(once), model(twice), **FLOAT32)


@kinds
def test_bfloat16(kind: str) -> None:
    """Autocast leaves embeddings in single precision, near those without it."""
    model, x = encoder(kind).eval(), inputs(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = encode_present({kind: model}, {kind: x}, torch.ones(6, 1, dtype=torch.bool))[:, 0]
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, model(x), rtol=0.1, atol=0.05)
    z.sum().backward()


@pytest.mark.parametrize("kind", IMAGES)
def test_image_in_evaluation_is_the_middle(kind: str) -> None:
    model, x = encoder(kind).eval(), inputs(kind)
    edge = x.clone()
    edge[:, :2], edge[:, :, :4], edge[:, -2:], edge[:, :, -4:] = 0, 0, 0, 0
    assert torch.equal(model(edge), model(x))
    assert torch.equal(model(x), model(x))


def test_augmentation_is_small_and_random() -> None:
    model = Image(4, crop=224, depths=(1,), widths=(8,))
    lines = torch.linspace(0, 1, 256)
    grey = (0.2 + 0.6 * lines.view(1, 1, 1, -1)).expand(64, 1, 256, 256)
    crops = model.augmented(grey)
    assert crops.shape == (64, 1, 224, 224)
    assert (crops[0] - crops[1]).abs().max() > 1e-3
    slope = crops.mean(dim=(1, 2)).diff(dim=-1)[:, 20:-20]
    assert (slope > 0).all(), "an image was mirrored"
    gap = crops.mean(dim=(1, 2, 3)) / grey.mean() - 1
    assert 0.05 < gap.abs().max() < 0.3
    torch.manual_seed(1)
    first = model.augmented(grey)
    torch.manual_seed(1)
    assert torch.equal(model.augmented(grey), first)


def test_augmentation_without_a_change_is_a_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free numbers in the middle of their range give the middle of the image."""
    model = encoder("image")
    grey = torch.rand(3, 1, 32, 36)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 0.5))
    torch.testing.assert_close(model.augmented(grey), model.middle(grey), **FLOAT32)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that opens a connection."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def rebuilt(model: Encoder) -> Encoder:
    """Another encoder of what a file would say of one, with its state."""
    other = build(json.loads(json.dumps(model.section())))
    other.load_state_dict(model.state_dict())
    return other.eval()


@kinds
@pytest.mark.usefixtures("offline")
def test_an_encoder_says_what_it_is_built_of(kind: str) -> None:
    model = encoder(kind).eval()
    other = rebuilt(model)
    assert type(other) is type(model)
    assert other.section() == model.section()
    assert torch.equal(other(inputs(kind)), model(inputs(kind)))
    assert other.section() == copy.deepcopy(other).section(), "a copy says the same"


def bodies() -> dict[str, Any]:
    """Tiny networks of each family of models, by their name."""
    sizes = {"vocab_size": 16, "max_position_embeddings": 10}
    bert = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert |= {"intermediate_size": 8, **sizes}
    package = pretrained.transformers()
    return {
        "bert": package.BertConfig(**bert),
        "roberta": package.RobertaConfig(**bert, pad_token_id=1),
        "distilbert": package.DistilBertConfig(**sizes, dim=8, n_layers=1, n_heads=2, hidden_dim=8),
        "resnet": package.ResNetConfig(
            embedding_size=4, hidden_sizes=[8], depths=[1], layer_type="bottleneck"
        ),
        "vit": package.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=14,
            patch_size=7,
        ),
    }


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "resnet", "vit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_is_built_again_when_its_weights_are_gone(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its architecture alone: no folder, no hub, and the very numbers."""
    kind = {"resnet": "image", "vit": "vit"}.get(name, "text")
    folder = tmp_path / "weights"
    torch.manual_seed(0)
    package = pretrained.transformers()
    package.AutoModel.from_config(bodies()[name]).to(dtype).save_pretrained(folder)
    options = {"crop": 28} if kind in IMAGES else {"vocabulary": 16}
    model = encoders.REGISTRY[kind](4, weights=folder, frozen=True, **options).eval()
    shutil.rmtree(folder)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are asked for")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    assert str(tmp_path) not in json.dumps(model.section())
    other, x = rebuilt(model), inputs(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        assert torch.equal(other(x), model(x))
    types = [{name: p.dtype for name, p in one.named_parameters()} for one in (model, other)]
    assert types[0] == types[1]
    assert [p.requires_grad for p in other.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]


@pytest.mark.usefixtures("offline")
def test_an_architecture_names_nothing_elsewhere(tmp_path: Path) -> None:
    """Neither code nor kernels nor weights, whatever a file says."""
    (tmp_path / "odd.py").write_text("raise SystemExit('executed')")
    given = encoder("text").section()["architecture"]
    odd = given | {
        "auto_map": {"AutoConfig": "odd.Odd", "AutoModel": "someone/odd--odd.Odd"},
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "_name_or_path": str(tmp_path),
    }
    assert Text(4, architecture=odd).section()["architecture"] == given
    with pytest.raises(ValueError, match="needs a model_type of transformers, but has 'odd'"):
        Text(4, architecture=odd | {"model_type": "odd"})
    with pytest.raises(ValueError, match="a ResNet, not BertModel"):
        Image(4, architecture=given)
    with pytest.raises(ValueError, match="a ViT, not BertModel"):
        ViT(4, architecture=given)
    with pytest.raises(ValueError, match="which is no text model"):
        Text(4, architecture=encoder("image").section()["architecture"])
    with pytest.raises(ValueError, match="vocabulary of 2000, but that of the architecture has 11"):
        Text(4, architecture=given, vocabulary=2000)
    with pytest.raises(ValueError, match="not both"):
        Text(4, weights=tmp_path, architecture=given)


class Odd(Precomputed):
    """An encoder of one's own, with an argument that no file can hold, and a default like it."""

    def __init__(self, dim: int, *, act: Any = torch.relu, sizes: tuple[int, ...] = (5,)) -> None:
        super().__init__(sizes[0], dim)
        self.act = act


def test_an_encoder_of_ones_own_is_described() -> None:
    section = Odd(4).section()
    assert section == {"kind": f"{__name__}.Odd", "dim": 4, "sizes": [5]}
    assert build(section).section() == section
    with pytest.raises(ValueError, match="Odd cannot be described by its argument 'act'"):
        Odd(4, act=torch.tanh).section()
    with pytest.raises(ValueError, match=r"'dense' does not read this modality: .*'features'"):
        build({"kind": "dense"}, dim=4, shape={"vocabulary": 3})
    with pytest.raises(ValueError, match="needs a kind: codes, dense, image, precomputed, series"):
        build({"features": 3}, dim=4)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("kind", ["image", "text", "vit"])
def test_weights_are_read_from_a_folder(kind: str, tmp_path: Path) -> None:
    source = encoder(kind)
    source.body.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"] == [
        ".safetensors"
    ]
    options = {"crop": 28} if kind in IMAGES else {}
    loaded = encoders.REGISTRY[kind](4, weights=tmp_path, frozen=True, **options)
    for name, value in source.body.state_dict().items():
        assert torch.equal(loaded.body.state_dict()[name], value)
    assert loaded.eval()(inputs(kind)).shape == (6, 4)
    other = {"image": "text", "text": "image", "vit": "text"}[kind]
    with pytest.raises(ValueError, match=r"do not fit|is no text model"):
        encoders.REGISTRY[other](4, weights=tmp_path)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    tiny_text(4, vocabulary=2000).body.save_pretrained(tmp_path)
    assert Text(4, weights=tmp_path, vocabulary=1990).vocabulary == 2000
    for vocabulary in (500, 2001):
        with pytest.raises(ValueError, match="use their tokenizer"):
            Text(4, weights=tmp_path, vocabulary=vocabulary)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("kind", IMAGES)
def test_a_hub_name_is_downloaded_and_then_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = encoder(kind)
    source.body.save_pretrained(tmp_path)
    asked = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, tuple(allow_patterns)))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    loaded = encoders.REGISTRY[kind](4, weights="someone/network", crop=28)
    assert asked == [("someone/network", ("*.json", "model*.safetensors", "pytorch_model*.bin"))]
    assert set(source.body.state_dict()) == set(loaded.body.state_dict())


@pytest.mark.usefixtures("offline")
def test_code_in_a_folder_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModel": "odd.Odd"}}'
    )
    (tmp_path / "odd.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        Text(4, weights=tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        Image(4, weights=tmp_path / "absent")
    with pytest.raises(ValueError, match="neither"):
        Text(4, weights="./absent")


@pytest.mark.usefixtures("offline")
def test_pickled_weights_cannot_execute(tmp_path: Path) -> None:
    """A ``.bin`` file is read by torch with ``weights_only``; one that calls something is not."""
    source = encoder("image")
    source.body.config.save_pretrained(tmp_path)
    torch.save(source.body.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = Image(4, weights=tmp_path, crop=28)
    for name, value in source.body.state_dict().items():
        assert torch.equal(loaded.body.state_dict()[name], value)

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("executed").touch, ())

    torch.save({"trap": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        Image(4, weights=tmp_path, crop=28)
    assert not (tmp_path / "executed").exists()


def test_transformers_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'cm2\[clinical\]'"):
        pretrained.transformers()


def test_sizes_of_the_paper() -> None:
    """Without classifiers ResNet-34 has 21,284,672 parameters, ViT-Base 85,798,656."""
    image, text = Image(8), Text(8)
    assert sum(p.numel() for p in image.body.parameters()) == 21_284_672
    with torch.device("meta"):
        vit = ViT(8)
    assert sum(p.numel() for p in vit.body.parameters()) == 85_798_656
    assert 14.2e6 < sum(p.numel() for p in text.body.parameters()) < 14.3e6
    recurrent = Series(8).recurrent
    assert (recurrent.input_size, recurrent.hidden_size, recurrent.num_layers) == (76, 256, 2)


def test_mistakes_are_named() -> None:
    steps = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"values \(rows, steps, 5\)"):
        encoder("series")(Padded(torch.zeros(2, 3, 4), steps))
    with pytest.raises(ValueError, match="each side at least 28"):
        encoder("image")(torch.zeros(2, 20, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must lie in 0 to 10.*but 1 do not"):
        encoder("codes")(Padded(torch.tensor([[1, 2, 3], [1, 2, 11]]), steps))
    with pytest.raises(ValueError, match="one shape"):
        encoder("codes")(Padded(torch.zeros(2, 4).long(), steps))
    with pytest.raises(ValueError, match="at most 6 tokens"):
        encoder("text")(Padded(torch.zeros(2, 1, 7).long(), torch.ones(2, 1, 7).bool()))
    with pytest.raises(ValueError, match=r"\(rows, chunks, tokens\)"):
        encoder("text")(Padded(torch.zeros(2, 7).long(), torch.ones(2, 7).bool()))
    with pytest.raises(ValueError, match="width 5, but got 4"):
        encoder("precomputed")(torch.zeros(2, 4))
    for mistake in (
        lambda: Series(4, width=0),
        lambda: CodeBag(4, vocabulary=0),
        lambda: Precomputed(0, 4),
        lambda: Image(4, depths=(1, 1), widths=(8,)),
        lambda: ViT(4, crop=30, patch=14, width=8, layers=1, heads=2),
        lambda: ViT(4, width=9, heads=2),
    ):
        with pytest.raises(ValueError, match=r"at least 1|is 0|each stage|multiple of"):
            mistake()
