"""The command `onnxq`: the Python functions, one command each.

Exit codes: 0 done; 1 a threshold that was asked for is not met; 2 bad input; 3 an engine that does
not run in the precision planned. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from onnxq import arguments
from onnxq.bytesize import in_bytes
from onnxq.errors import OnnxqError
from onnxq.garbage import rarely_collected
from onnxq.printing import (
    print_engine,
    print_json,
    print_left_in_float,
    print_needs,
    print_plan,
    print_runs_on,
    print_table,
    say,
)

app = typer.Typer(
    help="Quantize ONNX models for the hardware they run on, and prove what the engine runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DEFECT = 70  # the exit code of a program that fails for a reason of its own


def _print_version(wanted: bool) -> None:
    if wanted:
        import onnxq  # noqa: PLC0415

        print(f"onnxq {onnxq.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a defect (exit code 70).")
    ] = False,
) -> None:
    """Quantize ONNX models for the hardware that they will run on, and prove what runs."""


Model = Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)]
Provider = Annotated[str, typer.Option(help="Where ONNX Runtime runs: cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ExternalData = Annotated[
    bool, typer.Option("--external-data", help="Put the weights in a file beside the model.")
]
ShardSize = Annotated[
    str | None,
    typer.Option(help="Put the weights in files beside the model of at most that, such as 2GB."),
]
_DATA_HELP = (
    "A folder of .npz files, one .npz file, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, or random:N."
)
_PRESET_HELP = "With data: int8, fp8, int16-activations. Without: int8-dynamic. Either way: int4."


@app.command()
def quantize(
    model: Model,
    target: Annotated[str, typer.Option(help="What it will run on; see `onnxq targets`.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The ONNX file to write.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help=_PRESET_HELP)] = None,
    calibration: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    stats: Annotated[
        Path | None,
        typer.Option(help="Statistics of `onnxq calibrate`; data beside them measures the ops."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML or JSON file; see README.")] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Names of nodes or weights to leave in float, as a pattern."),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(help="int4: of the weights, 2, 4, 8, nf4, or auto: as a budget lets each."),
    ] = None,
    size_budget: Annotated[
        str | None, typer.Option(help="int4: what the file may take, such as 90MB.")
    ] = None,
    bits_per_weight: Annotated[
        float | None,
        typer.Option(help="int4: the same as a mean over the weights, scales included."),
    ] = None,
    head_bits: Annotated[
        int | None,
        typer.Option(help="int4: bits of the last product's weights, such as 8; 4 by default."),
    ] = None,
    conv_as_matmul: Annotated[
        bool,
        typer.Option("--conv-as-matmul", help="int4: a Conv of kernel size 1 becomes a MatMul."),
    ] = False,
    activation_dtype: Annotated[
        str | None,
        typer.Option(help="int4: what activations become, fp16, bf16 or fp32; the model's type."),
    ] = None,
    rotate: Annotated[
        bool | None,
        typer.Option(
            help="int4: turn the residual stream, folded into weights; where it pays by default.",
            show_default=False,
        ),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(help="Enough for the worst part of the outputs, in dB; 20 by default."),
    ] = None,
    max_float_ops: Annotated[
        float | None,
        typer.Option(help="Share of the ops that may stay in float for accuracy; 0.1 by default."),
    ] = None,
    max_float_weights: Annotated[
        float | None,
        typer.Option(help="Share of the weights that these ops may hold; 0.02 by default."),
    ] = None,
    no_recover: Annotated[
        bool, typer.Option("--no-recover", help="Leave no op in float for the outputs' accuracy.")
    ] = False,
    provider: Provider = "cpu",
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="How much the activations of one feed may take at once, such as 2GB, and weights "
            "that wait to be written."
        ),
    ] = None,
    cpu_has_vnni: Annotated[
        bool | None,
        typer.Option(
            help="int8 and int8-dynamic for ort-cpu: of the CPUs to run it; this one by default.",
            show_default=False,
        ),
    ] = None,
    min_runtime: Annotated[
        str | None,
        typer.Option(help="The oldest ONNX Runtime that shall run the result, such as 1.20."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure the latency beside float's on this CPU (ort-cpu)."),
    ] = False,
    external_data: ExternalData = False,
    shard_size: ShardSize = None,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done and why: .json or .html.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Quantize a model, with calibrated scales, scales found at run time, or weights only."""
    from onnxq import io, pipeline  # noqa: PLC0415

    if plan:
        planned = pipeline.plan(
            model,
            target=target,
            preset=preset,
            recipe=recipe,
            exclude=exclude or (),
            bits=arguments.bits(bits),
            size_budget=size_budget,
            bits_per_weight=bits_per_weight,
            head_bits=head_bits,
            conv_as_matmul=conv_as_matmul,
            activation_dtype=activation_dtype,
            rotate=rotate,
            cpu_has_vnni=cpu_has_vnni,
            min_runtime=min_runtime,
            has_data=calibration is not None,
        )
        print_plan(planned, as_json=as_json)
        return
    if output is None:
        raise OnnxqError("No output is given.", "Add -o MODEL.onnx, or --plan to write nothing.")
    for path in (output, report):
        if path is not None:
            io.ensure_writable(path)
    in_bytes(shard_size, "size of a shard")
    in_bytes(memory_limit)
    calibrates = calibration is not None and stats is None
    result = pipeline.quantize(
        model,
        target=target,
        preset=preset,
        recipe=recipe,
        calibration=calibration,
        stats=stats,
        exclude=exclude or (),
        bits=arguments.bits(bits),
        size_budget=size_budget,
        bits_per_weight=bits_per_weight,
        head_bits=head_bits,
        conv_as_matmul=conv_as_matmul,
        activation_dtype=activation_dtype,
        rotate=rotate,
        recovery=arguments.recovery(
            no_recover=no_recover,
            min_sqnr=min_sqnr,
            max_float_ops=max_float_ops,
            max_float_weights=max_float_weights,
        ),
        provider=provider,
        memory_limit=memory_limit if calibrates else None,
        cpu_has_vnni=cpu_has_vnni,
        min_runtime=min_runtime,
        measure=measure,
    )
    result.save(
        output, external_data=external_data, shard_size=shard_size, memory_limit=memory_limit
    )
    if report is not None:
        result.report.save(report)
    if as_json:
        print_json(result.report.to_json())
        return
    for warning in result.report.warnings:
        say(f"warning: {warning}")
    written = result.report
    size = written.weight_bytes
    counts = ", ".join(f"{count} {action}" for action, count in sorted(written.counts().items()))
    print(f"{output}: {counts}; weights {size['after'] / size['before']:.2f} of float's size")
    print_needs(written.needs)
    print_runs_on(written.runs_on)
    if written.rotation:
        print(written.rotation)
    if (latency := written.latency_ms) is not None:
        print(
            f"latency on {latency['on']}: {latency['float']} ms in float, "
            f"{latency['quantized']} ms quantized, {latency['speedup']} times float's speed"
        )
    print_left_in_float(written.float_reasons())


@app.command()
def calibrate(
    model: Annotated[
        list[Path],
        typer.Argument(help="An ONNX file; with --merge, statistics files.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The statistics file to write.")],
    calibration: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    observer: Annotated[str, typer.Option(help="How ranges are found.")] = "auto",
    provider: Provider = "cpu",
    memory_limit: Annotated[
        str | None,
        typer.Option(help="How much the activations of one feed may take at once, such as 2GB."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="INDEX/COUNT: only that part of the data, such as 2/8.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run that was killed had come to.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one file of the statistics of several shards.")
    ] = False,
    from_tensorrt_cache: Annotated[
        Path | None, typer.Option(help="Take the ranges from a cache of TensorRT up to 10.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sum up the activations of a model over data, for `onnxq quantize --stats`."""
    from onnxq import io, statistics  # noqa: PLC0415
    from onnxq.calib.store import CalibStore  # noqa: PLC0415

    sources = {
        "--calibration": calibration,
        "--merge": merge,
        "--from-tensorrt-cache": from_tensorrt_cache,
    }
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        raise OnnxqError(
            f"Expected one of {', '.join(sources)}; found {' and '.join(given) or 'none'}."
        )
    if calibration is None and (shard or resume or memory_limit or provider != "cpu"):
        raise OnnxqError(
            "--shard, --resume, --memory-limit and --provider are for --calibration.",
            "Leave them out.",
        )
    if memory_limit and resume:
        raise OnnxqError(
            "A run under a memory limit cannot be resumed: it may be several.",
            "Leave out one of them; shards can be merged.",
        )
    if not merge and len(model) > 1:
        raise OnnxqError(f"Expected one model; found {len(model)}.", "Only --merge takes several.")
    io.ensure_writable(output)
    partial = output.with_name(f"{output.name}.partial")
    if merge:
        store = CalibStore.merge([CalibStore.load(path) for path in model])
    elif from_tensorrt_cache is not None:
        imported = statistics.import_tensorrt_cache(model[0], from_tensorrt_cache)
        store = imported.store
        for what, names in (("model", imported.unknown), ("cache", imported.missing)):
            for name in names:
                say(f"not in the {what}: {name}")
    else:
        if not resume:
            partial.unlink(missing_ok=True)
        store = statistics.calibrate(
            model[0],
            calibration or "",
            observer=observer,
            provider=provider,
            shard=arguments.shard(shard),
            checkpoint=None if memory_limit else partial,
            memory_limit=memory_limit,
        )
    store.save(output)
    partial.unlink(missing_ok=True)
    summary = store.summary()
    if as_json:
        print_json(summary)
    else:
        print(f"{output}: {summary['tensors']} tensors, {summary['samples']} samples")


@app.command()
def build(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine to write.")],
    target: Annotated[str, typer.Option(help="rtx-smNN or trt-smNN; see `onnxq targets`.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=MIN:OPT:MAX for a dynamic input, such as x=1x3x48x32:1x3x48x320:..."
        ),
    ] = None,
    allow_fallback: Annotated[
        bool,
        typer.Option("--allow-fallback", help="Accept ops that run in float against the plan."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Build an engine, and prove the precision that it runs in."""
    from onnxq import engines  # noqa: PLC0415

    result = engines.build(
        model,
        output,
        target=target,
        shapes=arguments.shapes(shape or []),
        allow_fallback=allow_fallback,
    )
    manifest = engines.describe(result.engine)
    if as_json:
        print_json(manifest)
    else:
        print_engine(manifest)


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="The float model.", show_default=False)],
    candidate: Annotated[Path, typer.Argument(help="The quantized model.", show_default=False)],
    data: Annotated[str, typer.Option(help=_DATA_HELP)],
    min_sqnr: Annotated[
        float | None, typer.Option(help="Exit with 1 if an output's SQNR is below this, in dB.")
    ] = None,
    provider: Provider = "cpu",
    as_json: Json = False,
) -> None:
    """Measure how far the outputs of a model are from those of its float original."""
    import onnxq  # noqa: PLC0415

    comparison = onnxq.compare(reference, candidate, data, provider=provider)
    if as_json:
        print_json(comparison.to_json())
    else:
        header, *rows = comparison.to_rows()
        print_table(header, rows)
    for name in comparison.skipped:
        say(f"note: output '{name}' is no tensor of numbers, and was not compared")
    if min_sqnr is not None and not comparison.min_sqnr_db >= min_sqnr:
        say(f"The lowest SQNR is {comparison.min_sqnr_db:.2f} dB; {min_sqnr:.2f} dB was asked for.")
        raise typer.Exit(1)


@app.command()
def convert(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    to: Annotated[str, typer.Option(help="matmul-nbits or block-dequantize.")],
    external_data: ExternalData = False,
    shard_size: ShardSize = None,
    as_json: Json = False,
) -> None:
    """Bring blockwise weights into the form of another runtime, with the codes that they have."""
    from onnxq import conversion, io  # noqa: PLC0415

    io.ensure_writable(output)
    in_bytes(shard_size, "size of a shard")
    result = conversion.convert(model, to=to)
    result.save(output, external_data=external_data, shard_size=shard_size)
    for note in result.notes:
        say(f"note: {note}")
    if as_json:
        print_json({"form": result.form, "nodes": result.nodes, "notes": result.notes})
    else:
        print(f"{output}: {result.nodes} ops converted to {result.form}")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="An ONNX file or an engine.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Tell what is quantized to what, and what is left in float and why."""
    from onnxq import inspection  # noqa: PLC0415

    found = inspection.inspect(file)
    if as_json:
        print_json(found)
    elif "attestation" in found:
        print_engine(found)
    else:
        for key in ("target", "preset", "file_bytes", "weight_bytes"):
            print(f"{key.replace('_', ' ')}: {found[key]}")
        print_needs(found["needs"])
        print_runs_on(found["runs_on"])
        rows = [[f["op_type"], f["precision"], f["reason"], str(f["count"])] for f in found["ops"]]
        print_table(["op", "precision", "why", "nodes"], rows)


@app.command()
def targets(as_json: Json = False) -> None:
    """List the targets and what each of them runs in low precision."""
    from onnxq.inspection import targets_table  # noqa: PLC0415

    table = targets_table()
    if as_json:
        print_json(table)
        return
    header = ["target", "hardware", "int8", "kept float in int8", "fp8"]
    header += ["int16-activations", "int8-dynamic", "int4"]
    print_table(header, [[row[column] for column in header] for row in table])


def main() -> None:
    """Run the command line; errors made for users are one message and an exit code."""
    # When Python ends it looks for garbage among all objects, which takes a sixth of the CPU of a
    # small model, and finds nothing that matters: frozen ones are left out.
    atexit.register(gc.freeze)
    # Threads of NumPy's BLAS need not spin while they wait. NumPy, not imported yet, reads this.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    warnings.showwarning = lambda message, *_args, **_kwargs: say(f"warning: {message}")
    # Known before the options are read, and wherever it stands.
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        with rarely_collected():
            app()
    except OnnxqError as failure:
        say(f"error: {failure}")
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except Exception as failure:
        if debug:
            raise
        what = " ".join(str(failure).split())
        say(
            f"error: onnxq has a defect, which `onnxq {' '.join(sys.argv[1:3])}` met: "
            f"{type(failure).__name__}: {what}. Run it again with --debug for the traceback."
        )
        sys.exit(_DEFECT)
