"""onnxruntime.quantization: python ort.py MODEL FEEDS OUTPUT SETTING.

Settings: minmax, entropy, percentile are its calibrators in its defaults; `hand` is what is known
to work best: minmax, Conv and MatMul only, a scale per channel, a later opset.

Its preprocessing is run first, as its documentation asks for; where its symbolic shape inference
fails, without that. The histogram calibrators stack the
samples and fail on ragged ones, so they get padded ones.
"""

import sys
import tempfile
from pathlib import Path

import feeds
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
    "hand": CalibrationMethod.MinMax,
}
_HAND = {"op_types_to_quantize": ["Conv", "MatMul"], "per_channel": True}


def main(model, folder, output, setting):
    read = feeds.padded if setting in ("entropy", "percentile") else feeds.read
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary, "prepared.onnx")
        if setting == "hand":
            tidy = Path(temporary, "tidy.onnx")
            onnx.save(feeds.by_hand(onnx.load(model)), tidy)
            model = tidy
        try:
            quant_pre_process(model, prepared)
        except Exception:
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            feeds.Reader(read(folder)),
            calibrate_method=_METHODS[setting],
            **(_HAND if setting == "hand" else {}),
        )
    print(onnxruntime.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
