"""The folder of a run: what it holds, and when it may be written.

config.yaml (repeat with `cm2 demo --config`), versions.json, metrics.csv, metrics.json, figures/,
training/ (the log of one fit), classifier.skops (that fit), report.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cm2.core import files

MARK = "# A run of cm2 demo. Repeat it with: cm2 demo --config "


def open_folder(out: Path) -> Path:
    """Makes a folder for a run; an earlier run in the same place is written over.

    Raises:
        InputError: If it holds anything but an earlier run, or cannot be written.
    """
    return files.open_folder(out, _is_run, "earlier run")


def _is_run(folder: Path) -> bool:
    config = folder / "config.yaml"
    return config.is_file() and config.read_text(encoding="utf-8").startswith(MARK)


def write_config(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Writes the settings such that `cm2 demo --config` takes them; marks the folder as a run."""
    path = folder / "config.yaml"
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    files.write_text(path, f"{MARK}{path.name}\n{text}")
    return path
