"""Networks of Hugging Face transformers, built at random or read from weights.

Reading never executes code: weights are safetensors, or what ``torch.load`` reads with
``weights_only``, and code that a model's repository brings along is refused. A folder is read
without any network; only a hub name, which the user gives, may be looked up. What a network is
built of can be told without its weights (``describe``), and is enough for another (``build``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

WEIGHTS = ["model*.safetensors", "pytorch_model*.bin"]
"""Files that hold weights; where a model has both kinds, the first is read."""

REMOTE = {
    *("auto_map", "name_or_path", "_name_or_path", "quantization_config", "kernel_config"),
    *("attn_implementation", "_attn_implementation", "experts_implementation"),
    *("_experts_implementation", "backbone", "use_pretrained_backbone", "pretrained"),
}
"""Entries of a configuration that name code or weights elsewhere, or the machine's own folders."""


def transformers() -> ModuleType:
    """Returns the package, which is an extra.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import transformers as package
    except ImportError as error:
        raise ImportError(
            "encoders of images and text need the package transformers: pip install 'cm2[clinical]'"
        ) from error
    return package


def one_of(weights: str | Path | None, architecture: Mapping[str, Any] | None) -> None:
    """Refuses weights together with an architecture, since weights come with their own."""
    if weights is not None and architecture is not None:
        raise ValueError("give weights or an architecture, not both: weights come with their own")


def load(architecture: Any, source: str | Path, *, unused: tuple[str, ...] = ()) -> nn.Module:
    """Reads a network with its weights.

    Args:
        architecture: A class of ``transformers`` with ``from_pretrained``.
        source: A folder, or a name on the Hugging Face hub.
        unused: Names of parts that the encoder does not use and that may be missing.

    Raises:
        ValueError: If there is no such folder, or the weights do not fit the network.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if isinstance(source, Path) or source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise ValueError(
                f"weights are read from a folder or by a hub name, but {source} is neither"
            )
        folder = download(source)
    network, info = architecture.from_pretrained(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        output_loading_info=True,
    )
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith(unused)]
    wrong = [str(name) for name in info.get("mismatched_keys", ())]
    if missing or wrong:
        raise ValueError(
            f"the weights in {source} do not fit {type(network).__name__}: "
            f"{len(missing)} parameters are missing (such as {missing[:3]}) and "
            f"{len(wrong)} have another shape (such as {wrong[:3]})"
        )
    found: nn.Module = network
    return found


def download(name: str) -> Path:
    """Fetches configuration and weights from the Hugging Face hub, once; returns their folder.

    ``from_pretrained`` would do it too, but asks the hub in the background to convert weights that
    are not safetensors.

    Raises:
        ValueError: If they are not on this machine, and the hub cannot be reached or lacks them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", *WEIGHTS]))
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise ValueError(
            f"the weights {name!r} are not on this machine, and the hub did not give them "
            f"({type(error).__name__}); give a folder with them, or null for a random start"
        ) from error


def describe(network: Any) -> dict[str, Any]:
    """Returns what a network is built of: its configuration, and the type of its numbers.

    Args:
        network: A network of ``transformers``.
    """
    number = next(network.parameters()).dtype
    found: dict[str, Any] = _local(network.config.to_dict())
    return found | {"dtype": str(number).removeprefix("torch.")}


def build(description: Mapping[str, Any]) -> nn.Module:
    """Builds a network of what ``describe`` told, at random; nothing is read or looked up.

    Args:
        description: The configuration, with its ``model_type``.

    Raises:
        ValueError: If ``transformers`` knows no such network.
    """
    package = transformers()
    kind = description.get("model_type")
    if kind not in package.CONFIG_MAPPING:
        raise ValueError(f"an architecture needs a model_type of transformers, but has {kind!r}")
    config = package.CONFIG_MAPPING[kind].from_dict(_local(description))
    found: nn.Module = package.AutoModel.from_config(config, trust_remote_code=False)
    return found


def _local(content: Any) -> Any:
    """A configuration without what would be looked up elsewhere."""
    if isinstance(content, Mapping):
        return {str(key): _local(one) for key, one in content.items() if key not in REMOTE}
    if isinstance(content, (list, tuple)):
        return [_local(item) for item in content]
    return content
