"""Number formats, one file each: the name of a format is the name of its module."""

from functools import cache

from onnxq import registry
from onnxq.errors import RecipeError
from onnxq.formats.base import CodebookFormat, FloatFormat, IntegerFormat, NumberFormat

__all__ = ["CodebookFormat", "FloatFormat", "IntegerFormat", "NumberFormat", "get"]


@cache
def get(name: str) -> NumberFormat:
    """The format called `name`.

    Raises:
        RecipeError: There is none; the message proposes the nearest.
    """
    number_format: NumberFormat = registry.load("onnxq.formats", name, "FORMAT", RecipeError)
    return number_format
