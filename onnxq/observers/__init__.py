"""Observers, one file each: the name of an observer is the name of its module."""

from collections.abc import Mapping
from typing import Any

from onnxq import registry
from onnxq.errors import RecipeError
from onnxq.observers.base import Observer, State

__all__ = ["Observer", "State", "get"]


def get(name: str, settings: Mapping[str, Any] | None = None) -> Observer:
    """The observer called `name`, made with `settings`.

    Raises:
        RecipeError: There is none (the message proposes the nearest), or it does not take these
            settings.
    """
    make = registry.load("onnxq.observers", name, "OBSERVER", RecipeError)
    try:
        observer: Observer = make(**(settings or {}))
    except TypeError as failure:
        raise RecipeError(f"The observer '{name}' cannot be made: {failure}.") from failure
    return observer
