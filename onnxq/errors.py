"""What can go wrong, each with the place and the way out.

Every error is one message: what happened, where, and what to do. The command line prints it and
exits with `exit_code`; Python callers catch `OnnxqError` or a subclass.
"""

from __future__ import annotations


class OnnxqError(Exception):
    """Base of all errors that onnxq raises on purpose.

    Args:
        what: What was found, and what was expected.
        fix: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, fix: str | None = None) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what if fix is None else f"{what} {fix}")


class ModelError(OnnxqError):
    """The model cannot be read, is not valid ONNX, or holds something that is not supported."""


class DataError(OnnxqError):
    """Calibration or comparison data is missing, malformed or does not fit the model's inputs."""


class RecipeError(OnnxqError):
    """A recipe, preset or option is unknown or contradicts itself."""


class TargetError(OnnxqError):
    """The target is unknown, or it cannot do what was asked for."""


class MissingPackageError(OnnxqError):
    """An optional package is needed and not installed; the message names the extra."""


class OutputError(OnnxqError):
    """An output cannot be written."""


class EngineError(OnnxqError):
    """An engine cannot be built."""


class FallbackError(EngineError):
    """An engine was built, but ops planned in low precision run in float in it."""

    exit_code = 3


class NotFiniteError(ValueError):
    """An array holds NaN or infinity; whoever knows its name says which."""
