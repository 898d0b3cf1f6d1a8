"""Measuring how far a model is from its float original."""

from onnxq.comparison.accumulate import OutputComparison
from onnxq.comparison.comparator import Comparison, compare

__all__ = ["Comparison", "OutputComparison", "compare"]
