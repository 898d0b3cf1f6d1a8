"""Graph passes. Each is an `onnx_ir.passes.PassBase`, for any onnx-ir pipeline."""

if __name__ == "passes":
    raise ImportError("Import this package as 'onnxq.passes'.")
