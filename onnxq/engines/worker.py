"""The child process that builds: a builder that aborts takes only this process with it.

Reads a job (JSON) from standard input: {"backend", "model", "engine", "log", "compute_capability",
"profiles": {input: [min, opt, max]}}. Writes lines of JSON to standard output: {"steps": count} and
{"step": index} while it builds, and at last {"done": {...}} or {"error": message}.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from onnxq.engines import backend
from onnxq.errors import EngineError, OnnxqError


def main() -> None:
    """Run the job on standard input."""
    job = json.load(sys.stdin)
    try:
        with open(job["log"], "w", encoding="utf-8") as log:
            _tell({"done": _build(job, log)})
    except OnnxqError as failure:
        _tell({"error": str(failure), "kind": type(failure).__name__})


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _build(job: dict[str, Any], log: TextIO) -> dict[str, Any]:
    trt = backend.load(job["backend"])
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    strongly_typed = backend.flag(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(job["model"])
    errors = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
    if not parsed or errors:
        raise EngineError(f"{trt.__name__} cannot import the model: {'; '.join(errors)}.")
    if network.num_layers == 0 or network.num_outputs == 0:
        raise EngineError(f"{trt.__name__} found no layers in the model.", "Check the file.")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    backend.select_hardware(trt, config, job["compute_capability"])
    profile = builder.create_optimization_profile()
    for name, shapes in job["profiles"].items():
        profile.set_shape(name, *map(tuple, shapes))
    config.add_optimization_profile(profile)
    config.progress_monitor = _monitor(trt)
    with open(job["engine"], "wb") as file:
        writer = _writer(trt, file)
        built = builder.build_serialized_network_to_stream(network, config, writer)
    if not built:
        raise EngineError(f"{trt.__name__} cannot build the engine: {_last_errors(logger)}.")
    return {"version": trt.__version__}


def _logger(trt: Any, log: TextIO) -> Any:  # noqa: ANN401
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            log.write(f"{message}\n")
            log.flush()

    return Logger()


def _last_errors(logger: Any) -> str:  # noqa: ANN401
    last = "; ".join(" ".join(error.split()) for error in logger.errors[-3:])
    return last or "no error was logged"


def _monitor(trt: Any) -> Any:  # noqa: ANN401
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells of the outermost phase; the others are within its steps."""

        def __init__(self) -> None:
            super().__init__()
            self.outermost = ""

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outermost = phase
                _tell({"steps": steps})

        def step_complete(self, phase: str, step: int) -> bool:
            if phase == self.outermost:
                _tell({"step": step})
            return True

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()


def _writer(trt: Any, file: Any) -> Any:  # noqa: ANN401
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def write(self, data: bytes) -> int:
            return int(file.write(data))

    return Writer()


def _parser_error(error: Any) -> str:  # noqa: ANN401
    where = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_name() else ""
    return where + " ".join(error.desc().split()).rstrip(".")


if __name__ == "__main__":
    main()
