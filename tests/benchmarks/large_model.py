"""A large model to int4: CPU time and peak memory of onnxq and of onnxruntime's quantizer.

    python tests/benchmarks/large_model.py [--layers 24] [--folder FOLDER] [--no-peer]

The model is `layers` products with float16 weights of 4096 x 14336 in external data: 2.8 GB for 24.
Each tool runs in a process of its own, from the file on disk to the file on disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

_ROWS, _COLUMNS = 4096, 14336

_MEASURE = """
import json, resource, sys
source, output, algorithm = sys.argv[1:]
{body}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
_ONNXQ = """
import onnxq
recipe = {"weights": {"algorithm": algorithm}}
onnxq.quantize(source, preset="int4", target="ort-cpu", recipe=recipe).save(output)
"""
_PEER = """
import onnx
import logging
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
logging.disable()
quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=False)
quantizer.process()
quantizer.model.save_model_to_file(output, True)
"""


def main() -> None:
    """Make the model, run each tool, print what it took."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--layers", type=int, default=24)
    arguments.add_argument("--folder", type=Path, help="where files go for the time of the run")
    arguments.add_argument("--no-peer", action="store_true", help="onnxq only")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        source = Path(temporary) / "source" / "model.onnx"
        _make(source, given.layers)
        size = source.with_name("weights.bin").stat().st_size
        print(f"{size / 1e9:.2f} GB of float16 weights", flush=True)
        runs = [("onnxq", _ONNXQ, name) for name in ("rtn", "auto")]
        if not given.no_peer:
            runs.append(("onnxruntime", _PEER, "rtn"))
        for tool, body, algorithm in runs:
            _run(tool, body, algorithm, source, size)


def _run(tool: str, body: str, algorithm: str, source: Path, size: int) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent.parent) as folder:
        code = _MEASURE.replace("{body}", body)
        command = [sys.executable, "-c", code, str(source), f"{folder}/int4.onnx", algorithm]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        cpu, peak = json.loads(said.splitlines()[-1])
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(
        f"{tool:12} {algorithm:5} {cpu:6.1f} CPU-s, peak {peak / 1e6:5.0f} MB "
        f"({peak / size:.2f} of the model), {written / 1e6:.0f} MB written",
        flush=True,
    )


def _make(path: Path, layers: int) -> None:
    """x [1, 4096] -> products with every weight, each an output."""
    path.parent.mkdir()
    block = np.random.default_rng(0).standard_normal((512, _COLUMNS), np.float32) / 50
    half = block.astype(np.float16)
    weights, nodes, outputs = [], [], []
    with path.with_name("weights.bin").open("wb") as file:
        for layer in range(layers):
            weight = onnx.TensorProto(name=f"w{layer}", dims=[_ROWS, _COLUMNS], data_type=10)
            weight.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": "weights.bin", "offset": file.tell()}
            for key, value in (place | {"length": 2 * _ROWS * _COLUMNS}).items():
                weight.external_data.add(key=key, value=str(value))
            for _ in range(_ROWS // len(half)):
                half.tofile(file)
            weights.append(weight)
            nodes.append(
                helper.make_node("MatMul", ["x", f"w{layer}"], [f"y{layer}"], name=f"op{layer}")
            )
            outputs.append(helper.make_tensor_value_info(f"y{layer}", 10, [1, _COLUMNS]))
    inputs = [helper.make_tensor_value_info("x", 10, [1, _ROWS])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)


if __name__ == "__main__":
    main()
