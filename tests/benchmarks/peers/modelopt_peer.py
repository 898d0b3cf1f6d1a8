"""nvidia-modelopt: python modelopt_peer.py MODEL FEEDS OUTPUT SETTING.

Settings: `default`; `hand`, of a later opset and with initializers for Constant nodes, without
which it gives all of a weight one scale. The feeds come through a reader, so they may be ragged.
"""

import sys
import tempfile
from pathlib import Path

import feeds
import modelopt
import onnx
from modelopt.onnx.quantization import quantize


def main(model, folder, output, setting):
    with tempfile.TemporaryDirectory() as temporary:  # it writes beside its input
        source = Path(temporary, "model.onnx")
        loaded = onnx.load(model)
        onnx.save(feeds.by_hand(loaded) if setting == "hand" else loaded, source)
        quantize(
            str(source),
            quantize_mode="int8",
            calibration_data_reader=feeds.Reader(feeds.read(folder)),
            calibration_eps=["cpu"],
            output_path=output,
        )
    print(modelopt.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
