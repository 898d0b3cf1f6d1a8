"""Arguments of the command line that are more than a word or a number."""

from __future__ import annotations

from typing import Literal

from onnxq.errors import OnnxqError


def shapes(given: list[str]) -> dict[str, str]:
    """NAME=MIN:OPT:MAX, each as a shape by name.

    Raises:
        OnnxqError: One is not.
    """
    found = {}
    for each in given:
        name, equals, shape = each.rpartition("=")
        if not equals or not name:
            raise OnnxqError(
                f"--shape '{each}' is not NAME=MIN:OPT:MAX.",
                "Example: --shape x=1x3x48x32:1x3x48x320:1x3x48x1280",
            )
        found[name] = shape
    return found


def shard(given: str | None) -> tuple[int, int] | None:
    """INDEX/COUNT as numbers.

    Raises:
        OnnxqError: It is not.
    """
    if given is None:
        return None
    index, _, count = given.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise OnnxqError(f"--shard '{given}' is not INDEX/COUNT.", "Example: --shard 2/8")
    return int(index), int(count)


def bits(given: str | None) -> int | str | None:
    """A number, if it is one."""
    return int(given) if given is not None and given.isdecimal() else given


def recovery(
    *, no_recover: bool, **limits: float | None
) -> dict[str, float] | Literal[False] | None:
    """The limits given of a recovery; False for none.

    Raises:
        OnnxqError: There are some for none.
    """
    changes = {name: value for name, value in limits.items() if value is not None}
    if no_recover and changes:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise OnnxqError(f"--no-recover contradicts {given}.", "Leave one of them out.")
    return False if no_recover else changes or None
