"""Finding a plugin by its name.

The name of a built-in is the name of its module ("rtx-sm89" is `onnxq/targets/rtx_sm89.py`), which
defines one attribute of an agreed name. Third parties register the same through an entry point of
the group (`[project.entry-points."onnxq.targets"]`).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from onnxq.errors import OnnxqError


def names(group: str) -> list[str]:
    """The names of all plugins of `group` (a package such as "onnxq.targets"), sorted."""
    return sorted({*_built_in(group), *_third_party(group)})


def load(group: str, name: str, attribute: str, error: type[OnnxqError]) -> Any:  # noqa: ANN401
    """Import the plugin `name` of `group` and return its `attribute`.

    Raises:
        OnnxqError: Of the class `error`: the name is unknown (the nearest one is proposed), taken
            twice, or its module cannot be imported.
    """
    built_in, third_party = _built_in(group), _third_party(group)
    kind = group.rpartition(".")[2].removesuffix("s").replace("_", " ")
    if name in built_in and name in third_party:
        raise error(
            f"Two {kind}s are named '{name}': onnxq's own and {third_party[name].value}.",
            "Rename the entry point.",
        )
    if name in built_in:
        return getattr(importlib.import_module(f"{group}.{built_in[name]}"), attribute)
    if name in third_party:
        try:
            return third_party[name].load()
        except Exception as failure:
            raise error(
                f"The {kind} plugin '{name}' ({third_party[name].value}) cannot be imported: "
                f"{type(failure).__name__}: {failure}",
                "Repair or uninstall the package that registers it.",
            ) from failure
    known = names(group)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise error(f"There is no {kind} '{name}'.", f"{hint}Known: {', '.join(known)}.")


@cache
def _built_in(group: str) -> dict[str, str]:
    package = importlib.import_module(group)
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return {m.replace("_", "-"): m for m in modules if not m.startswith("_") and m != "base"}


@cache
def _third_party(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
