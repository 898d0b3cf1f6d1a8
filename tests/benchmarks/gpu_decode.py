"""How fast ONNX Runtime decodes on a GPU: SmolLM2 with a KV cache and large layers, fp16 and int4.

    python tests/benchmarks/gpu_decode.py --make FOLDER
    python tests/benchmarks/gpu_decode.py --run FOLDER [--provider cpu]

The first needs onnxq and writes graphs without weights (1 MB); the second needs numpy and
onnxruntime-gpu alone, and fills in random weights (2.3 GB of files): speed does not depend on their
values.

SmolLM2 decodes a token at a time behind 128 or 1024 tokens, always the likeliest; inputs, logits
and caches, which are updated in place, stay on the device. The layers are eight products with
4096x14336 and its transpose in turns, for 1 token and for 256. Kernels are launched one by one, and
then as one CUDA graph. Each round runs each model once; printed are medians of the rounds, and the
agreement (cosine) of the outputs with those of the same file on the CPU.
"""

import argparse
import json
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np

_BLOCK = 1 << 24  # bytes that are made at random, and repeated
_DEVIATION = 0.005  # of weights and scales in float16
_CONTEXTS, _TOKENS = (128, 1024), (1, 256)
_BEST = "fp16"  # what others are compared with
_LEAST_COSINE = 0.99


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--make", type=Path, metavar="FOLDER", help="write the models")
    arguments.add_argument("--run", type=Path, metavar="FOLDER", help="run the models")
    arguments.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--only", default="", help="part of the names of models to run")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--steps", type=int, default=64, help="tokens decoded a round")
    arguments.add_argument("--no-check", action="store_true", help="compare no outputs")
    given = arguments.parse_args()
    if given.make:
        from gpu_models import make

        make(given.make)
    if given.run:
        sys.exit(_run(given))


def _run(given):
    """The number of models that did not run."""
    import onnxruntime

    if given.provider == "cuda":
        onnxruntime.preload_dlls()
    print(f"onnxruntime {onnxruntime.__version__}, {given.provider}, {_hardware(given.provider)}")
    listed = json.loads((given.run / "weights.json").read_text())
    files = {name: _fill(given.run, **each) for name, each in listed.items() if given.only in name}
    failed = 0
    for is_graph in (False, True) if given.provider == "cuda" else (False,):
        launch = "one CUDA graph" if is_graph else "kernel by kernel"
        for context in _CONTEXTS:
            title = f"SmolLM2, {context} tokens before, {launch}: tokens/s"
            failed += _table(title, files, "smollm2 ", given, is_graph, context)
        for tokens in _TOKENS:
            title = f"4096x14336, {tokens} tokens, {launch}: layers/s"
            failed += _table(title, files, "layer ", given, is_graph, tokens)
    return failed


def _table(title, files, kind, given, is_graph, size):
    """Run the models of a kind beside each other; the number of those that did not."""
    names = [name for name in files if name.startswith(kind)]
    if not names:
        return 0
    print(f"\n{title}", flush=True)
    cases, failed = {}, 0
    for name in names:
        try:
            make = Decoding if kind == "smollm2 " else Layers
            cases[name] = case = make(files[name], size, given.steps, given.provider, is_graph)
            case.run()  # arranges memory, and records the graph
            if not given.no_check:
                case.require_like(_on_cpu(make, files[name], size, given.steps))
        except Exception as failure:  # the others are worth measuring
            cases.pop(name, None)
            failed += 1
            print(f"  {name.removeprefix(kind):28} failed: {' '.join(str(failure).split())[:400]}")
    rates = {name: [] for name in cases}
    for _ in range(given.rounds):
        for name, case in cases.items():
            begun = time.perf_counter()
            count = case.run()
            rates[name].append(count / (time.perf_counter() - begun))
    best = np.median(rates.get(f"{kind}{_BEST}", [np.nan]))
    for name, found in rates.items():
        middle = np.median(found)
        print(
            f"  {name.removeprefix(kind):28} {middle:9.1f} ({min(found):.1f} to {max(found):.1f}), "
            f"{middle / best:5.2f} of {_BEST}'s; {cases[name].agreement}",
            flush=True,
        )
    return failed


@cache
def _on_cpu(make, path, size, steps):
    """The outputs of the first step on the CPU."""
    return make(path, size, steps, "cpu", is_graph=False).outputs()


class Case:
    """A model whose inputs and outputs stay on the device."""

    agreement = "not compared"

    def __init__(self, path, provider, is_graph):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        if provider == "cuda":
            settings = {"enable_cuda_graph": "1"} if is_graph else {}
            providers.insert(0, ("CUDAExecutionProvider", settings))
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if provider == "cuda" and "CUDAExecutionProvider" not in self.session.get_providers():
            raise RuntimeError(f"CUDA did not start: {self.session.get_providers()}")
        self.provider = provider
        self.binding = self.session.io_binding()
        self._values = onnxruntime.OrtValue

    def require_like(self, expected):
        """Fail if the outputs are not as expected but for rounding in float16."""
        cosine = _cosine(self.outputs(), expected)
        self.agreement = f"cosine {cosine:.6f}"
        if not cosine > _LEAST_COSINE:
            raise RuntimeError(f"outputs on the CPU are others: {self.agreement}")

    def input(self, name, array):
        """Bind a copy of `array` on the device to an input."""
        value = self._values.ortvalue_from_numpy(array, self.provider, 0)
        self.binding.bind_ortvalue_input(name, value)
        return value

    def output(self, name, shape):
        """Bind an array on the device to an output."""
        value = self._values.ortvalue_from_shape_and_type(shape, np.float16, self.provider, 0)
        self.binding.bind_ortvalue_output(name, value)
        return value


class Decoding(Case):
    """A language model behind a text of `context` tokens."""

    def __init__(self, path, context, steps, provider, is_graph):
        super().__init__(path, provider, is_graph)
        self._context, self._steps = context, steps
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        length = context + steps
        self._ids = self.input("input_ids", np.ones((1, 1), np.int64))
        # As long as the cache can get, so that all shapes stay: ones are what has been seen.
        self._mask = self.input("attention_mask", np.ones((1, length), np.int64))
        self._logits = self.output("logits", [1, 1, outputs[0].shape[2]])
        random = np.random.default_rng(0)
        for past, present in zip(inputs[2:], outputs[1:], strict=True):
            _, heads, _, size = past.shape
            seen = random.standard_normal((1, heads, length, size), np.float32) / 4
            cache = self.input(past.name, seen.astype(np.float16))
            self.binding.bind_ortvalue_output(present.name, cache)

    def run(self):
        """Decode; the number of tokens."""
        token = 1
        for step in range(self._steps):
            token = _likeliest(self._step(token, step))
        return self._steps

    def outputs(self):
        """The logits of the first token."""
        return self._step(1, 0)

    def _step(self, token, step):
        self._ids.update_inplace(np.array([[token]], np.int64))
        length = self._context + self._steps
        seen = np.arange(length)[None] <= self._context + step
        self._mask.update_inplace(seen.astype(np.int64))
        self.session.run_with_iobinding(self.binding)
        return self._logits.numpy()


class Layers(Case):
    """Products for several tokens at once."""

    def __init__(self, path, tokens, steps, provider, is_graph):
        super().__init__(path, provider, is_graph)
        (given,), (result,) = self.session.get_inputs(), self.session.get_outputs()
        x = np.random.default_rng(0).standard_normal((tokens, given.shape[1]), np.float32)
        self.input(given.name, x.astype(np.float16))
        self._result = self.output(result.name, [tokens, result.shape[1]])
        self._repeats = steps if provider == "cuda" else 1

    def run(self):
        """Run all layers some times; the number of layers."""
        for _ in range(self._repeats):
            self.session.run_with_iobinding(self.binding)
        return 8 * self._repeats

    def outputs(self):
        """What the last layer gives."""
        self.session.run_with_iobinding(self.binding)
        return self._result.numpy()


def _fill(folder, file, weights):
    """Write the weights of the model in `file` beside it, at random; its path."""
    random = np.random.default_rng(0)
    normal = (random.standard_normal(_BLOCK // 2, np.float32) * _DEVIATION).astype(np.float16)
    blocks = {
        "float16": normal.tobytes(),
        "uint8": random.integers(0, 256, _BLOCK, np.uint8).tobytes(),
    }
    with (folder / f"{file}.data").open("wb") as data:
        for kind, size in weights:
            for start in range(0, size, _BLOCK):
                data.write(blocks[kind][: min(_BLOCK, size - start)])
    return folder / file


def _likeliest(logits):
    """The place of the largest of float16 numbers, by their bits: numpy compares those faster."""
    bits = logits.view(np.int16).ravel()
    return int((bits ^ (bits >> 15 & 0x7FFF)).argmax())


def _cosine(a, b):
    a, b = (each.astype(np.float64).ravel() for each in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b))


def _hardware(provider):
    import subprocess

    if provider == "cpu":
        return "this machine"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
