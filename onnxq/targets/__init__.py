"""Targets, one file each: the name of a target is the name of its module."""

from onnxq.targets.base import No, StaticSupport, Target, WeightOnlySupport, Yes, all_targets, get

__all__ = ["No", "StaticSupport", "Target", "WeightOnlySupport", "Yes", "all_targets", "get"]
