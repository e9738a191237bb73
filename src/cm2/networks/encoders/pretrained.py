"""Networks of Hugging Face transformers, built at random or read from weights.

Reading never executes code: weights are safetensors, or what ``torch.load`` reads with
``weights_only``, and code that a model's repository brings along is refused. A folder is read
without any network; only a hub name, which the user gives, may be looked up.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

WEIGHTS = ["model*.safetensors", "pytorch_model*.bin"]
"""Files that hold weights; where a model has both kinds, the first is read."""


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
