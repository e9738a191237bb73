"""An output folder that is either whole or not there.

Work goes into a hidden folder beside it, which takes its name at the very end. What an interrupted
run left there is removed by the next one.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

from cm2.clinical.prepare.errors import TableError
from cm2.core.files import check_writable

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


__all__ = ["building", "refuse", "working"]


def refuse(out: Path, raw: Path) -> None:
    """Refuses an output folder that could destroy other files.

    Args:
        out: Where results are to go.
        raw: Where the raw tables are.

    Raises:
        TableError: It is a file, or one of the two folders lies in the other.
        InputError: It cannot be made or written.
    """
    here, there = out.resolve(), raw.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise TableError(f"{out}: the output must lie outside the raw tables in {raw}")
    if out.exists() and not out.is_dir():
        raise TableError(f"{out}: exists and is no folder")
    check_writable(out.parent)  # where the folder is built, and renamed


@contextmanager
def _alone(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a file that one run alone can hold, and removes it at the end.

    Raises:
        TableError: Another run has it; the error says what is given.
    """
    with lock.open("w") as file:
        try:
            _lock(file)
        except OSError:
            raise TableError(refusal) from None
        try:
            yield
        finally:
            # Windows does not remove a file that is open; it is in nobody's way.
            with suppress(PermissionError):
                lock.unlink(missing_ok=True)


@contextmanager
def working(place: Path, out: Path) -> Iterator[Path]:
    """Gives a folder for rows of patients on the way, which nobody else can read and which goes.

    It is called after the folder that is made, so that what a run that was killed has left there
    goes with the next.

    Args:
        place: Where.
        out: What is made.

    Raises:
        TableError: Another run has it, or what is there cannot be removed.
    """
    name = f"cm2-{blake2b(str(out.resolve()).encode(), digest_size=8).hexdigest()}"
    own = place / name
    with _alone(place / f"{name}.lock", f"{own}: another run is working there"):
        shutil.rmtree(own, ignore_errors=True)
        try:
            own.mkdir(mode=0o700)
        except FileExistsError:
            raise TableError(f"{own}: cannot be removed; it is of another user") from None
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def building(out: Path, *, owned: str) -> Iterator[Path]:
    """Gives a folder to work in, which becomes ``out`` if the block ends without an error.

    Args:
        out: Replaced as a whole where it exists.
        owned: A file by which a folder of ours is known; any other that is not empty is refused.

    Raises:
        TableError: ``out`` holds something else, or another run is writing it.
    """
    out = out.absolute()
    if out.is_dir() and any(out.iterdir()) and not (out / owned).is_file():
        raise TableError(f"{out}: holds files but no {owned}, so it is not written over")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (out.with_name(f".{out.name}.{end}") for end in ("partial", "replaced"))
    lock = out.with_name(f".{out.name}.lock")
    with _alone(lock, f"{out}: another run is writing this folder"):
        try:
            # A run that was stopped between the two renames below left the old folder here.
            if old.exists() and not out.exists():
                old.rename(out)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
            partial.mkdir()
            yield partial
            if out.exists():
                out.rename(old)
            partial.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
