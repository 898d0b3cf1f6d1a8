"""How fast weights become codes: onnxq's kernels beside ONNX Runtime's quantizers, on one weight.

    python tests/benchmarks/weight_kernels.py [--rows 4096] [--columns 14336]

Printed is GB of float32 weight per CPU-second (of all threads), the best of three runs, and the
relative squared error. ONNX Runtime's C++ quantizer gets the whole weight; its HQQ and k-quant, in
Python, a part of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxq.passes.weights import get
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_BLOCK = 32
_PART = 2048  # columns that the quantizers in Python get
_PEERS = {"rtn": "C++", "mse": "C++", "auto": "C++", "kquant": "k-quant", "hqq": "HQQ"}


def main() -> None:
    """Measure, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=4096)
    arguments.add_argument("--columns", type=int, default=14336)
    given = arguments.parse_args()
    shape = (given.rows, given.columns)
    weight = np.random.default_rng(0).standard_normal(shape, np.float32) / 50
    target = np.empty_like(weight)
    copied = _rate(weight, lambda: np.copyto(target, weight))
    print(f"{'memcpy':31} {copied:7.3f} GB/s per CPU-s")
    peers = _onnx_runtime(weight)
    for name, rate in peers.items():
        print(f"{'onnxruntime, ' + name:31} {rate:7.3f} GB/s per CPU-s")
    for name, peer in _PEERS.items():
        for symmetric in (True, False):
            _print_one(name, symmetric, weight, copied, (peer, peers[peer]))


def _print_one(
    name: str, symmetric: bool, weight: Array, copied: float, peer: tuple[str, float]
) -> None:
    spec = QuantSpec("int4" if symmetric else "uint4", PerBlock(0, _BLOCK), symmetric)
    rate = _rate(weight, lambda: get(name)(weight, spec))
    what = f"onnxq, {name}, {'symmetric' if symmetric else 'zero points'}"
    print(
        f"{what:31} {rate:7.3f} GB/s per CPU-s: {rate / copied:5.2f} of memcpy, "
        f"{rate / peer[1]:5.1f} times onnxruntime's {peer[0]}; "
        f"error {_error(weight, get(name)(weight, spec)):.5f}"
    )


def _rate(weight: Array, run: Callable[[], object]) -> float:
    """GB per CPU-second of the fastest of three runs, after one that compiles."""
    run()
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return float(weight.nbytes / min(times) / 1e9)


def _onnx_runtime(weight: Array) -> dict[str, float]:
    import torch
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    from onnxruntime.quantization.neural_compressor import weight_only

    rows, columns = weight.shape
    blocks = -(-rows // _BLOCK)
    codes = np.zeros((columns, blocks, _BLOCK // 2), np.uint8)
    scales = np.zeros(columns * blocks, np.float32)
    zeros = np.zeros(columns * ((blocks + 1) // 2), np.uint8)
    part = np.ascontiguousarray(weight[:, :_PART].T)
    hqq: Any = nbits.HQQWeightOnlyQuantizer(nbits.HQQWeightOnlyQuantConfig(block_size=_BLOCK))
    torch.set_num_threads(1)
    return {
        "C++": _rate(
            weight,
            lambda: quantize_matmul_4bits(
                codes, weight, scales, zeros, _BLOCK, columns, rows, False
            ),
        ),
        "k-quant": _rate(
            part, lambda: weight_only.quant_tensor_k_quant_cpu(part, group_size=_BLOCK)
        ),
        "HQQ": _rate(
            part, lambda: hqq.quantize_internal(torch.from_numpy(part), group_size=_BLOCK)
        ),
    }


def _error(weight: Array, quantized: QTensor) -> float:
    """Of the first blocks."""
    count = 64 * _BLOCK
    scale, zero = (
        np.repeat(each[:64].astype(np.float32), _BLOCK, axis=0)
        for each in (quantized.params.scale, quantized.params.zero_point)
    )
    found = (quantized.codes[:count] - zero) * scale
    difference = np.square(found - weight[:count]).sum(dtype=np.float64)
    return float(difference / np.square(weight[:count]).sum(dtype=np.float64))


if __name__ == "__main__":
    main()
