"""The types and shapes that the tests check at run time: which calls are checked."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

import typecheck
from cm2.core import numerics
from cm2.core.numerics import log1mexp

GOOD, BAD = torch.zeros(2, 3), torch.zeros(3)


def make() -> Callable[[Tensor], Tensor]:
    """A function as the import hook decorates it."""

    def same(x: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
        return x

    return typecheck.some_calls(typechecker=typecheck.checked)(same)


def refused(function: Callable[[Tensor], Tensor]) -> bool:
    try:
        function(BAD)
    except TypeCheckError:
        return True
    return False


def test_first_calls_are_checked_and_then_now_and_then() -> None:
    function, rounds = make(), 3 * typecheck.EVERY
    found = [call for call in range(1, rounds + 1) if refused(function)]
    first = list(range(1, typecheck.FIRST + 1))
    assert found == [*first, typecheck.EVERY, 2 * typecheck.EVERY, rounds]


def test_functions_made_anew_count_as_one_and_the_next_test_begins_anew() -> None:
    for _ in range(typecheck.FIRST):
        make()(GOOD)
    assert not refused(make())
    typecheck.calls.clear()
    assert refused(make())


def test_results_are_checked_too() -> None:
    def wrong(x: Float[Tensor, "row column"]) -> Float[Tensor, "column row"]:
        return x

    with pytest.raises(TypeCheckError):
        typecheck.some_calls(typechecker=typecheck.checked)(wrong)(GOOD)


@pytest.mark.parametrize("test", ["first", "second"])
def test_the_library_is_under_it_from_the_start_of_each_test(test: str) -> None:
    assert not typecheck.calls, "what earlier tests have called does not count"
    with pytest.raises(TypeCheckError):
        log1mexp([0.5])
    for _ in range(typecheck.FIRST):
        log1mexp(-GOOD - 1)
    assert max(typecheck.calls.values()) > typecheck.FIRST


def test_bytecode_with_checks_is_apart_and_that_of_other_packages_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another_package.py").touch()
    path = tmp_path / "with_checks.py"
    path.write_text("import another_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    known = numerics.__loader__
    loader = type(known)("with_checks", str(path), typechecker=known._typechecker)
    spec = spec_from_loader("with_checks", loader)
    assert spec is not None
    loader.exec_module(module_from_spec(spec))
    monkeypatch.delitem(sys.modules, "another_package")
    kept = {file.name.split(".")[0]: file.name for file in (tmp_path / "__pycache__").iterdir()}
    assert "jaxtyping" in kept["with_checks"]
    assert "jaxtyping" not in kept["another_package"]
