"""What an experiment is: a YAML file, its overrides, and the check of every key and value.

A section names a class by its ``kind`` and gives arguments of that class; they are checked against
its signature, by name and type, before anything starts. There is no other list of what is allowed::

    data: {root: prepared/mimic4, modalities: [series, cxr], setting: partial}
    dim: 256
    encoders:
      series: {kind: series}
      cxr: {kind: image, weights: microsoft/resnet-34}
    model: {kind: cm2, copula: gumbel, components: 3}
    training: {lr: 1.0e-4, batch_size: 16}
    seed: 0
    head: fusion

``base: ../common.yaml`` takes everything from another file first.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cm2.core.errors import InputError
from cm2.core.numerics import seeded
from cm2.core.yaml import read
from cm2.estimators import assembly
from cm2.estimators.classifier import CM2Classifier
from cm2.experiments import heads
from cm2.networks import encoders, models, training
from cm2.networks.encoders.sections import arguments, encoder
from cm2.samples.container import Samples

__all__ = ["ConfigError", "Experiment", "load", "parse"]


class ConfigError(InputError):
    """An experiment is not described as it should be; nothing has been started."""


@dataclass(frozen=True)
class Experiment:
    """A whole experiment, every default written out.

    Attributes:
        name: A title for tables and reports.
        data: Arguments of :meth:`~cm2.samples.container.Samples.open`, and with the head ``fusion``
            of :func:`~cm2.experiments.heads.reading`.
        dim: Width of all embeddings.
        encoders: For each modality its encoder's ``kind`` and arguments.
        model: The model's ``kind`` and arguments.
        training: Arguments of :func:`~cm2.networks.training.train`.
        seed: Of parameters, the order of samples and all draws.
        head: The ``kind`` of what predicts, and arguments: ``"fusion"``, the model itself, or
            ``"pooled"``, ``"joint"``, ``"experts"``, ``"linear"`` or ``"boosting"``, heads of
            :class:`~cm2.estimators.classifier.CM2Classifier`, for which the other sections have
            only what that takes.
    """

    name: str
    data: dict[str, Any]
    dim: int
    encoders: dict[str, dict[str, Any]]
    model: dict[str, Any]
    training: dict[str, Any]
    seed: int
    head: dict[str, Any] = field(default_factory=lambda: {"kind": heads.NETWORK})

    @property
    def method(self) -> str:
        """What is fitted: the kind of the model, or the head, if that is another than fusion."""
        kind = self.head["kind"]
        return str(self.model["kind"] if kind == heads.NETWORK else kind)

    def dump(self) -> str:
        """Returns the experiment as YAML that ``load`` reads."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False)


KEYS = ("name", "data", "dim", "encoders", "model", "training", "seed", "head")
FROM_DATA = ("features", "vocabulary", "hours_per_step")
"""Arguments of encoders that are read off the data where a file does not give them."""


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads an experiment.

    Args:
        path: Its YAML file.
        overrides: ``"model.copula=frank"``: keys, then a value in YAML.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is not accepted.
    """
    tree = _read(Path(path), ())
    for override in overrides:
        _assign(tree, override)
    try:
        return parse(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def dropped(path: Path, overrides: Sequence[str]) -> list[str]:
    """Those of some overrides that a later one takes back: by another kind, or a whole part.

    One whose key is given anew is not among them.

    Args:
        path: The experiment's YAML file.
        overrides: As for :func:`load`.
    """
    tree = _read(Path(path), ())
    for override in overrides:
        _assign(tree, override)
    keys = [one.partition("=")[0] for one in overrides]
    lost = []
    for number, override in enumerate(overrides):
        key, _, text = override.partition("=")
        at: Any = tree
        for part in key.split("."):
            at = at.get(part, Ellipsis) if isinstance(at, Mapping) else Ellipsis
        # One that is given anew, or refined, by a later one has been reached.
        again = any(later == key or later.startswith(f"{key}.") for later in keys[number + 1 :])
        if at is Ellipsis or (not again and at != read(text)):
            lost.append(override)
    return lost


def parse(tree: Mapping[str, Any]) -> Experiment:
    """Checks a tree of keys and values, and fills in the defaults.

    Raises:
        ConfigError: Naming the key, and the nearest one that there is.
    """
    _known("", tree, KEYS)
    sections = {key: tree.get(key) for key in ("data", "encoders", "model", "training")}
    for key, section in sections.items():
        if not isinstance(section if section is not None else {}, Mapping):
            raise ConfigError(f"{key} must hold keys and values, but is {section!r}")
    head = _head(tree.get("head", heads.NETWORK))
    if head["kind"] != heads.NETWORK:
        return _of_head(tree, sections, head)
    data = _checked("data", (Samples.open, heads.reading), sections["data"] or {}, skip=READ)
    parts = sections["encoders"] or {}
    if not parts:
        raise ConfigError("encoders must name an encoder for each modality")
    chosen = data.get("modalities")
    if chosen is not None and (missing := [name for name in chosen if name not in parts]):
        raise ConfigError(f"encoders lacks {missing}, but data.modalities lists {list(chosen)}")
    dim = _scalar(tree, "dim", int, 256)
    if dim < 1:
        raise ConfigError(f"dim must be at least 1, but is {dim}")
    names = [name for name in parts if chosen is None or name in chosen]
    model = _part("model", models.REGISTRY, sections["model"] or {}, {"encoders", "labels", "seed"})
    _can_be_built(model, names, dim)
    return Experiment(
        name=_scalar(tree, "name", str, "experiment"),
        data=data,
        dim=dim,
        encoders={
            name: _part(f"encoders.{name}", encoders.REGISTRY, parts[name], {"dim", *FROM_DATA})
            for name in names
        },
        model=model,
        training=_training(sections["training"] or {}),
        seed=_seed(tree),
    )


def _training(given: Mapping[str, Any]) -> dict[str, Any]:
    found = _checked("training", training.train, given, skip=GIVEN)
    try:
        training.check(found)
    except ValueError as error:
        raise ConfigError(f"training.{error}") from None
    return found


def _seed(tree: Mapping[str, Any]) -> int:
    seed: int = _scalar(tree, "seed", int, 0)
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, but is {seed}")
    return seed


def _head(given: Any) -> dict[str, Any]:
    """The head's kind and arguments, of which a network that is trained as today has none."""
    section = given if isinstance(given, Mapping) else {"kind": given}
    kind = section.get("kind")
    if kind not in heads.KINDS:
        raise ConfigError(f"head must be one of {', '.join(heads.KINDS)}, but is {given!r}")
    rest = {key: value for key, value in section.items() if key != "kind"}
    return {"kind": kind, **_taken("head", rest, {} if kind == heads.NETWORK else heads.HEAD, kind)}


def _of_head(
    tree: Mapping[str, Any], sections: Mapping[str, Any], head: dict[str, Any]
) -> Experiment:
    """Checks the keys of a classifier's head; those that only a network knows are refused."""
    given = {key: dict(section or {}) for key, section in sections.items()}
    kind = head["kind"]
    opened = [name for name in arguments(Samples.open) if name not in READ]
    _known("data.", given["data"], opened, f"head {kind} knows")
    data = _checked("data", Samples.open, given["data"], skip=READ)
    parts, chosen = given["encoders"], data["modalities"]
    found = Experiment(
        name=_scalar(tree, "name", str, "experiment"),
        data=data,
        dim=_scalar(tree, "dim", int, heads.default("embedding_dim")),
        encoders={
            name: _part(f"encoders.{name}", encoders.REGISTRY, part, {"dim", *FROM_DATA})
            for name, part in parts.items()
            if chosen is None or name in chosen
        },
        model=_taken("model", given["model"], heads.MODEL, kind),
        training=_taken("training", given["training"], heads.TRAINING, kind),
        seed=_seed(tree),
        head=head,
    )
    try:
        assembly.check(heads.classifier(found).get_params(deep=False))
    except ValueError as error:
        raise ConfigError(f"head {kind}: {error}") from None
    return found


def _taken(
    where: str, given: Mapping[str, Any], names: Mapping[str, str], kind: str
) -> dict[str, Any]:
    """Checks keys that a classifier calls by other names; returns them with all defaults."""
    _known(f"{where}.", given, names, f"head {kind} knows")
    skip = set(arguments(CM2Classifier)) - set(names.values())
    called = {names[key]: value for key, value in given.items()}
    found = _checked(where, CM2Classifier, called, skip=skip)
    return {key: found[argument] for key, argument in names.items()}


READ = {"split", "labelled"}
"""Arguments of the data that come from elsewhere."""

GIVEN = {"model", "task", "training", "validation", "seed", "run_dir", "resume"}
"""Arguments of training that come from elsewhere."""


def _can_be_built(model: Mapping[str, Any], names: Sequence[str], dim: int) -> None:
    """Builds the model once on small encoders: it knows best which names and numbers it takes."""
    options = {key: value for key, value in model.items() if key != "kind"}
    cls: Any = models.REGISTRY[model["kind"]]
    with seeded(0):
        try:
            cls({name: encoders.Dense(1, dim) for name in names}, 1, **options)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from None


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's tree over that of its base."""
    path = path.resolve()
    if path in above:
        raise ConfigError(f"{path}: base files refer to each other in a circle")
    try:
        tree = read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, but a YAML file was expected") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: keys and values were expected, but got {type(tree).__name__}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    return _merged(_read(path.parent / base, (*above, path)), tree)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another; a part of another ``kind`` replaces the part below it."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            same = "kind" not in value or value["kind"] == below.get("kind")
            both[key] = _merged(below, value) if same else dict(value)
        else:
            both[key] = value
    return both


def _assign(tree: dict[str, Any], override: str) -> None:
    """Sets one key of a tree; another ``kind`` drops the arguments of the one before."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"an override is KEY=VALUE, such as model.copula=frank, not {override!r}")
    try:
        value = read(text)
    except yaml.YAMLError as error:
        said = getattr(error, "problem", None) or error
        raise ConfigError(f"the value in {override!r} is refused: {said}") from None
    *path, last = name.split(".")
    for key in path:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{override!r} goes into {key!r}, which is a single value")
        tree = below
    if last == "kind" and value != tree.get("kind"):
        tree.clear()
    tree[last] = value


def _part(where: str, registry: Any, given: Any, skip: set[str]) -> dict[str, Any]:
    """Checks a part that is named by its kind; arguments from the data are kept if given."""
    if not isinstance(given, Mapping) or "kind" not in given:
        raise ConfigError(f"{where} needs a kind: {', '.join(sorted(registry))}")
    try:
        cls: Any = (encoder if registry is encoders.REGISTRY else registry.__getitem__)(
            given["kind"]
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    rest = {key: value for key, value in given.items() if key != "kind"}
    fixed = {key: rest.pop(key) for key in FROM_DATA if key in rest and key in arguments(cls)}
    return {"kind": given["kind"], **_checked(where, cls, rest, skip=skip), **fixed}


def _checked(
    where: str,
    function: Callable[..., Any] | tuple[Callable[..., Any], ...],
    given: Mapping[str, Any],
    *,
    skip: set[str],
) -> dict[str, Any]:
    """Checks arguments against signatures, by name and type; returns them with all defaults."""
    functions = function if isinstance(function, tuple) else (function,)
    names = [name for one in functions for name in arguments(one) if name not in skip]
    _known(f"{where}.", given, names)
    try:
        found = _parser(functions, frozenset(skip)).parse_object(dict(given))
    except ArgumentError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None
    return dict(found.as_dict())


@functools.cache
def _parser(functions: tuple[Callable[..., Any], ...], skip: frozenset[str]) -> ArgumentParser:
    """What checks the arguments of functions or classes; made once, as that reads their source."""
    parser = ArgumentParser(exit_on_error=False)
    for one in functions:
        add: Any = (
            parser.add_class_arguments if inspect.isclass(one) else parser.add_function_arguments
        )
        add(one, skip=skip & set(arguments(one)), fail_untyped=False)
    return parser


def _known(
    prefix: str, given: Mapping[str, Any], names: Iterable[str], who: str = "Known here"
) -> None:
    """Refuses keys that nobody asks for."""
    known = list(names)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{close[0]}?" if close else "."
            raise ConfigError(f"unknown key {prefix}{key}{hint} {who}: {', '.join(known)}")


def _scalar(tree: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = tree.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{key} must be {kind.__name__}, but is {value!r}")
    return value


def _plain(value: Any) -> Any:
    """Values as YAML writes them: no paths, no tuples."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
