"""What is compared: the models with their data and judges, and the tools with their commands."""

from dataclasses import dataclass
from pathlib import Path

import data
import judges

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """A real model.

    Attributes:
        feeds: Gives its calibration data.
        judge: Says how good a file is at its task, on data that no calibration saw.
        noise: Two accuracies that differ by no more than this are the same.
    """

    feeds: object
    judge: object
    noise: float


CASES = {
    "ppocr-rec": Case(data.recognition, judges.recognition, 0.02),
    "ppocr-det": Case(data.detection, judges.detection, 0.02),
    "ppocr-cls": Case(data.angle, judges.angle, 0.01),
    "orientation": Case(data.orientation, judges.orientation, 0.0),
    "yolov8n": Case(data.yolo, judges.yolo, 0.03),
    "magika": Case(data.magika, judges.magika, 0.01),
    "silero-vad": Case(data.silero, judges.silero, 0.005),
    "minilm": Case(data.minilm, judges.minilm, 0.002),
}

PEERS = {
    "ort minmax": ("ort.py", "minmax"),
    "ort entropy": ("ort.py", "entropy"),
    "ort percentile": ("ort.py", "percentile"),
    "ort by hand": ("ort.py", "hand"),
    "modelopt": ("modelopt_peer.py", "default"),
    "modelopt by hand": ("modelopt_peer.py", "hand"),
    "nncf": ("nncf_peer.py", "default"),
    "nncf by hand": ("nncf_peer.py", "hand"),
}
ONNXQ = {"onnxq ort-cpu": "ort-cpu", "onnxq rtx-sm89": "rtx-sm89"}
TOOLS = [*ONNXQ, *PEERS]


def command(tool, venv, model, feeds, output):
    """How `tool` makes the int8 file `output` of a model."""
    if tool in ONNXQ:
        what = [venv / "onnxq/bin/python", "-m", "onnxq", "quantize", model, "-o", output]
        return [*what, "--preset", "int8", "--target", ONNXQ[tool], "--calibration", feeds]
    script, setting = PEERS[tool]
    return [venv / "bin/python", _HERE / "peers" / script, model, feeds, output, setting]
