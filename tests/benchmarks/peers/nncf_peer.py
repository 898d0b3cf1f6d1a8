"""nncf: python nncf_peer.py MODEL FEEDS OUTPUT SETTING.

Settings: `default`; `hand`, of a later opset and with initializers for Constant nodes, without
which it gives all of a weight one scale. It takes ragged feeds.
"""

import sys

import feeds
import nncf
import onnx


def main(model, folder, output, setting):
    loaded = onnx.load(model)
    if setting == "hand":
        loaded = feeds.by_hand(loaded)
    onnx.save(nncf.quantize(loaded, nncf.Dataset(list(feeds.read(folder)))), output)
    print(nncf.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
