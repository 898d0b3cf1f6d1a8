"""Measuring how far a model is from its float original."""

from onnxq.compare.accumulate import OutputComparison
from onnxq.compare.compare import Comparison, compare

__all__ = ["Comparison", "OutputComparison", "compare"]
