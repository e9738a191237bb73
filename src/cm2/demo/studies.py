"""What the demo can be run on: eICU stays, or digits cut into views where no stays are at hand."""

from __future__ import annotations

from pathlib import Path

from cm2.benchmark.studies import STUDIES, Study
from cm2.core.errors import InputError

EICU = "eicu-demo"
"""Name of the eICU demo's folder in a folder of data sets."""


def eicu_folder(data: Path | None, home: str | None) -> Path | None:
    """Finds the folder of the eICU demo.

    Args:
        data: A folder that was asked for; it holds the tables, or a folder `eicu-demo` that does.
        home: A folder of data sets in which one may be, such as the value of CM2_DATA_HOME.

    Returns:
        The folder with the tables, or None if none was asked for and there is none.

    Raises:
        InputError: If the folder that was asked for, or `home`, has no eICU tables.
    """
    place = data if data is not None else (Path(home) if home else None)
    if place is None:
        return None
    for folder in (place, place / EICU):
        if any(folder.glob("patient.*")):
            return folder
    asked = "--data" if data is not None else "CM2_DATA_HOME"
    state = (
        "does not exist" if not place.is_dir() else f"has no table 'patient', nor has {EICU} in it"
    )
    raise InputError(
        f"{asked} names {place}, which {state}; give the folder of the eICU demo's tables, or "
        "leave it out for the digits"
    )


def load(folder: Path | None) -> Study:
    """Loads the eICU study of a folder, or the digits.

    Raises:
        InputError: If a table is missing, cannot be read, or has faults that are known.
    """
    if folder is None:
        return STUDIES["digits"]()
    from cm2.clinical.prepare.errors import TableError

    try:
        return STUDIES["eicu"](folder)
    except (TableError, OSError) as error:
        raise InputError(str(error)) from error
