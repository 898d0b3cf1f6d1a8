"""Engines: built in a child process, and attested."""

from onnxq.engines.builder import BuildResult, build
from onnxq.engines.manifest import describe

__all__ = ["BuildResult", "build", "describe"]
