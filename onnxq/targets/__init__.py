"""Targets, one file each: the name of a target is the name of its module."""

from onnxq.targets.base import (
    DynamicSupport,
    No,
    StaticSupport,
    Target,
    WeightOnlySupport,
    Yes,
    all_targets,
    get,
)

__all__ = [
    "DynamicSupport",
    "No",
    "StaticSupport",
    "Target",
    "WeightOnlySupport",
    "Yes",
    "all_targets",
    "get",
]
