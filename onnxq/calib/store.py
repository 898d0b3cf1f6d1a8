"""What calibration learnt, as a file: observer states in safetensors, the rest in its header.

Array "3.min" is the field "min" of the state of `tensors[3]`; the header's key "onnxq" holds a JSON
object with the tensors' names, the model's fingerprint, the data and the observer.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from onnxq import observers
from onnxq.errors import DataError, OutputError
from onnxq.observers import State
from onnxq.types import QParams, QuantSpec

_VERSION = 2


@dataclass(frozen=True, eq=False)
class CalibStore:
    """Observer states of a model's tensors, and where they come from.

    Attributes:
        states: The state of each tensor, by its name.
        fingerprint: Of the model.
        feeds: The description of the data.
        samples: How many feeds were seen.
        observer: The observer's name.
        settings: What the observer was made with.
        is_random: Whether the data was made up.
    """

    states: Mapping[str, State]
    fingerprint: str
    feeds: str
    samples: int
    observer: str
    settings: Mapping[str, Any]
    is_random: bool = False
    _found: dict[tuple[str, QuantSpec], QParams] = field(
        default_factory=dict, init=False, repr=False
    )

    def params(self, tensor: str, spec: QuantSpec) -> QParams:
        """The scale and zero point of `tensor`.

        Raises:
            DataError: It was not observed, or had no elements in any sample.
            RecipeError: The observer cannot give what `spec` asks for.
        """
        if (tensor, spec) not in self._found:
            if tensor not in self.states:
                raise DataError(
                    f"The statistics hold nothing about '{tensor}' (they hold "
                    f"{len(self.states)} tensors).",
                    "Calibrate again with this recipe and target.",
                )
            observer = observers.get(self.observer, self.settings)
            try:
                self._found[tensor, spec] = observer.finish(self.states[tensor], spec)
            except DataError as failure:
                raise DataError(f"Tensor '{tensor}': {failure.what}", failure.fix) from failure
        return self._found[tensor, spec]

    def explain(self, tensor: str, spec: QuantSpec) -> str:
        """How `params` found the range of `tensor`, and how much it clips."""
        return observers.get(self.observer, self.settings).explain(self.states[tensor], spec)

    def saw(self, tensor: str) -> bool:
        """Whether any sample had values of `tensor`; a branch may never have been taken."""
        initial = observers.get(self.observer, self.settings).init()
        state = self.states.get(tensor, initial)
        return any(not np.array_equal(array, initial[field]) for field, array in state.items())

    def summary(self) -> dict[str, Any]:
        """Where the numbers come from, for the report."""
        return {
            "data": self.feeds,
            "samples": self.samples,
            "observer": self.observer,
            "settings": dict(self.settings),
            "tensors": len(self.states),
            "is_random": self.is_random,
        }

    def require(self, fingerprint: str) -> None:
        """Check that the statistics are those of the model with this fingerprint.

        Raises:
            DataError: They are not.
        """
        if fingerprint != self.fingerprint:
            raise DataError(
                f"The statistics belong to another model: theirs has the fingerprint "
                f"{self.fingerprint[:12]}, this one {fingerprint[:12]}.",
                "Calibrate again with this model.",
            )

    @classmethod
    def merge(cls, stores: Sequence[CalibStore]) -> CalibStore:
        """One store of what several saw: shards of one data set, in any order.

        Raises:
            DataError: They are of different models, observers or tensors.
        """
        first, *others = stores
        observer = observers.get(first.observer, first.settings)
        states = dict(first.states)
        for other in others:
            other.require(first.fingerprint)
            if (other.observer, dict(other.settings)) != (first.observer, dict(first.settings)):
                raise DataError(
                    f"The statistics are of different observers: {first.observer} with "
                    f"{dict(first.settings)}, {other.observer} with {dict(other.settings)}.",
                    "Calibrate all shards with the same observer.",
                )
            if set(other.states) != set(states):
                raise DataError(
                    f"The statistics are of different tensors: {len(states)} and "
                    f"{len(other.states)}.",
                    "Calibrate all shards with the same version of onnxq.",
                )
            states = {name: observer.merge(states[name], other.states[name]) for name in states}
        return replace(
            first,
            states=states,
            feeds=" + ".join(sorted(store.feeds for store in stores)),
            samples=sum(store.samples for store in stores),
            is_random=any(store.is_random for store in stores),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it appears whole, or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        header = {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "feeds": self.feeds,
            "samples": self.samples,
            "observer": self.observer,
            "settings": dict(self.settings),
            "is_random": self.is_random,
            "tensors": list(self.states),
        }
        arrays = {
            f"{index}.{field}": array
            for index, state in enumerate(self.states.values())
            for field, array in state.items()
        }
        data = save(arrays, metadata={"onnxq": json.dumps(header)})
        target = Path(path)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(
                dir=target.parent, prefix=f".{target.name}.", delete=False
            ) as file:
                temporary = Path(file.name)
                file.write(data)
            temporary.replace(target)
        except OSError as failure:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise OutputError(
                f"The statistics cannot be written to {target}: {failure}.",
                "Choose a folder that exists, is writable and has room.",
            ) from failure

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibStore:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing, damaged, or something else.
        """
        try:
            with safe_open(path, framework="np") as file:
                header = json.loads((file.metadata() or {})["onnxq"])
                if header["version"] != _VERSION:
                    raise ValueError(f"format version {header['version']} instead of {_VERSION}")
                states: list[State] = [{} for _ in header["tensors"]]
                for key in file.keys():  # noqa: SIM118
                    index, field = key.split(".", 1)
                    states[int(index)][field] = file.get_tensor(key)
            return cls(
                states=dict(zip(header["tensors"], states, strict=True)),
                fingerprint=header["fingerprint"],
                feeds=header["feeds"],
                samples=header["samples"],
                observer=header["observer"],
                settings=header["settings"],
                is_random=header["is_random"],
            )
        except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError) as failure:
            raise DataError(
                f"{path} is not a readable statistics file: {type(failure).__name__}: {failure}.",
                "Write one with `onnxq calibrate`.",
            ) from failure
