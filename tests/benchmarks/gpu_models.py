"""The models that `gpu_decode.py` runs, without their weights.

Speed does not depend on the values of weights, so a file holds a graph and small constants alone,
and says where in a file beside it each weight is: `weights.json` lists their types and sizes, for
the machine that runs them to fill those files in.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "samples"), str(ROOT / "tests")]

import models  # noqa: E402
import smollm2_kv  # noqa: E402
from tape import Tape, named, tensor  # noqa: E402

import onnxq  # noqa: E402

_SMALL = 4096  # bytes up to which a constant stays in its graph
_WIDTHS = (4096, 14336)
_PAIRS = 4  # of layers there and back; no weight is read twice, so that caches do not help
_LAYER = "layer"
_WAYS = {
    "int4 block 32": {},
    "int4 block 32 symmetric": {"symmetric": True},
    "int4 block 128": {"block_size": 128},
    "int4 block 128 symmetric": {"block_size": 128, "symmetric": True},
}


def make(folder):
    """Write all models to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {}
    for name, model in _all():
        file = f"{name.replace(' ', '-')}.onnx"
        listed[name] = {"file": file, "weights": _strip(model, f"{file}.data")}
        ir.save(model, folder / file)
        print(f"{name:36} {(folder / file).stat().st_size / 1e6:6.2f} MB", flush=True)
    (folder / "weights.json").write_text(json.dumps(listed, indent=1))


def _all():
    language = smollm2_kv.build(*smollm2_kv.read(models.gguf()), np.float16)
    for kind, model in (("smollm2", language), (_LAYER, _layers())):
        yield f"{kind} fp16", model.clone()
        for way, weights in _WAYS.items():
            if kind == _LAYER or "128" not in way:
                recipe = {"weights": weights}
                result = onnxq.quantize(model, preset="int4", target="ort-cuda", recipe=recipe)
                yield f"{kind} {way}", result.model


def _layers():
    """x [tokens, 4096] through products with 4096x14336 and 14336x4096 in turns."""
    tape = Tape()
    value = first = tensor("x", ir.DataType.FLOAT16, ["tokens", _WIDTHS[0]])
    for index in range(2 * _PAIRS):
        shape = _WIDTHS if index % 2 == 0 else _WIDTHS[::-1]
        weight = tape.constant(f"w{index}", np.zeros(shape, np.float16))
        value = tape.op("MatMul", value, weight)
    last = named(value, "y", ir.DataType.FLOAT16, ["tokens", _WIDTHS[0]])
    return tape.model([first], [last], name="layers", opsets={"": 21}, ir_version=10)


def _strip(model, location):
    """Take the weights out of `model`: the type and the bytes of each, in their order."""
    listed, offset = [], 0
    for value in model.graph.initializers.values():
        weight = value.const_value
        if weight.nbytes <= _SMALL:
            continue
        value.const_value = ir.ExternalTensor(
            location, offset, weight.nbytes, weight.dtype, shape=weight.shape, name=value.name
        )
        listed.append([weight.dtype.numpy().name, weight.nbytes])
        offset += weight.nbytes
    return listed
