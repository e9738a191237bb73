"""The registry: names in order, suggestions for typing errors, no silent overwriting."""

import pytest

from cm2.core.registry import Registry


def _shapes() -> Registry[object]:
    shapes = Registry[object]("shape")

    @shapes.register("square")
    class Square: ...

    @shapes.register("disc")
    class Disc: ...

    return shapes


def test_looks_up_iterates_and_counts() -> None:
    shapes = _shapes()
    assert list(shapes) == ["square", "disc"]
    assert len(shapes) == 2
    assert "disc" in shapes
    assert "ball" not in shapes
    assert shapes["disc"].__name__ == "Disc"


def test_unknown_name_suggests_and_lists() -> None:
    shapes = _shapes()
    with pytest.raises(ValueError, match=r"unknown shape 'dist'; did you mean 'disc'\?.*square"):
        shapes["dist"]
    with pytest.raises(ValueError, match="unknown shape 'zzzzzz'"):
        shapes["zzzzzz"]


def test_a_name_is_registered_once() -> None:
    shapes = _shapes()
    with pytest.raises(ValueError, match="'disc' is registered already"):
        shapes.register("disc")(type("Other", (), {}))
    assert shapes["disc"].__name__ == "Disc"
