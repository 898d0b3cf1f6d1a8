"""How good a model is at its task, on data with known truth that no calibration saw.

Each judge takes the path of a model and returns numbers from 0 to 1 (or dB), higher is better.
"""

import json
from functools import cache

import data
import files
import models
import numpy as np
import speech
from embeddings_int4 import embeddings
from fetch import fetch
from ocr_int8_engine import accuracy
from skimage.measure import label, regionprops
from text_lines import EVALUATION

from onnxq import runtime


def recognition(model, count=400):
    """Line accuracy of ppocr-rec."""
    return accuracy(model, count)


def angle(model, count=400):
    """Accuracy of ppocr-cls: upright or upside down."""
    return _hits(model, data.turned_lines(count, EVALUATION))


def orientation(model, count=80):
    """Accuracy of orientation: quarter turns of pages."""
    return _hits(model, data.turned_pages(count, EVALUATION))


def magika(model, count=400):
    """Accuracy of magika on files of known type."""
    folder = fetch("magika") / "magika/models/standard_v3_3/config.min.json"
    labels = json.loads(folder.read_text())["target_labels_space"]
    truth = ((labels.index(name), feed) for name, feed in files.labelled_files(count, EVALUATION))
    return _hits(model, truth)


def silero(model, count=6):
    """Frame accuracy of silero-vad."""
    session = runtime.session(model)
    right = []
    for sound, truth in speech.recordings(count, EVALUATION):
        found, _ = speech.detect(sound, lambda feed: session.run(["output", "stateN"], feed))
        right.append((found > 0.5) == truth)
    return float(np.concatenate(right).mean())


def minilm(model, count=100):
    """Mean cosine to the float model's embeddings."""
    sentences = data.sentences(count, EVALUATION)
    reference = _embeddings(tuple(sentences))
    return float(np.mean(np.sum(reference * embeddings(model, sentences), axis=1)))


@cache
def _embeddings(sentences):
    return embeddings(models.path("minilm"), sentences)


def detection(model):
    """F1 of the text boxes of ppocr-det against the float model's, at IoU 0.7."""
    expected, found = (
        [_boxes(session.run(None, feed)[0][0, 0]) for feed in data.detection_evaluation()]
        for session in _both("ppocr-det", model)
    )
    return _f1(expected, found, 0.7)


def yolo(model):
    """F1 of the boxes of yolov8n against the float model's, at IoU 0.7, score 0.25."""
    expected, found = (
        [_detections(session.run(None, feed)[0][0]) for feed in data.yolo_evaluation()]
        for session in _both("yolov8n", model)
    )
    return _f1(expected, found, 0.7)


def yolo_scores_db(model):
    """SQNR of the class scores of yolov8n: rows 4 and on of its one output."""
    signal = noise = 0.0
    reference, candidate = _both("yolov8n", model)
    for feed in data.yolo_evaluation():
        expected, found = (
            session.run(None, feed)[0][:, 4:].astype(np.float64)
            for session in (reference, candidate)
        )
        signal += float((expected**2).sum())
        noise += float(((found - expected) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def _both(name, model):
    return runtime.session(models.path(name)), runtime.session(model)


def _hits(model, samples):
    session = runtime.session(model)
    return float(np.mean([session.run(None, feed)[0].argmax() == truth for truth, feed in samples]))


def _boxes(probability):
    """Boxes [y0, x0, y1, x1] around what is text with a probability above 0.3."""
    regions = regionprops(label(probability > 0.3))
    return np.array([r.bbox for r in regions if r.area > 20], float).reshape(-1, 4)


def _detections(output):
    """Boxes of the best class above 0.25, the best of those that overlap."""
    boxes, scores = output[:4].T, output[4:].max(axis=0)
    order = np.argsort(-scores)
    order = order[scores[order] > 0.25]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    kept = []
    for index in order:
        if all(_iou(corners[index][None], corners[k][None])[0, 0] < 0.45 for k in kept):
            kept.append(index)
    return corners[kept].reshape(-1, 4)


def _iou(a, b):
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    sizes = [np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b)]
    return both / np.maximum(sizes[0][:, None] + sizes[1][None] - both, 1e-9)


def _f1(expected, found, least):
    """Each expected box is found once, by the box that overlaps it most."""
    matched = 0
    for a, b in zip(expected, found, strict=True):
        overlaps = _iou(a, b)
        while overlaps.size and overlaps.max() >= least:
            matched += 1
            i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
            overlaps[i], overlaps[:, j] = 0, 0
    return 2 * matched / max(sum(map(len, expected)) + sum(map(len, found)), 1)
