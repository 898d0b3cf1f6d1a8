"""What the peers get: calibration feeds from a folder with one .npz for each, and tidy models."""

from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter


def read(folder):
    """One feed after the other."""
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as arrays:
            yield dict(arrays)


def padded(folder):
    """The same, with zeros behind each array up to the largest of all."""
    largest = {}
    for feed in read(folder):
        for name, array in feed.items():
            largest[name] = np.maximum(largest.get(name, array.shape), array.shape).astype(int)
    for feed in read(folder):
        yield {name: _grown(array, largest[name]) for name, array in feed.items()}


def _grown(array, shape):
    grown = np.zeros(shape, array.dtype)
    grown[tuple(map(slice, array.shape))] = array
    return grown


class Reader:
    """What onnxruntime.quantization and modelopt call a CalibrationDataReader."""

    def __init__(self, feeds):
        self._feeds = list(feeds)
        self.rewind()

    def get_first(self):
        return self._feeds[0]

    def get_next(self):
        return next(self._left, None)

    def rewind(self):
        self._left = iter(self._feeds)


def by_hand(model):
    """The model as they take it best: opset 13 or later, arrays not in Constant nodes."""
    if next(each.version for each in model.opset_import if not each.domain) < 13:
        model = onnx.version_converter.convert_version(model, 13)
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None and value.dims:
            value.name = node.output[0]
            model.graph.initializer.append(value)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.checker.check_model(model)
    return model
