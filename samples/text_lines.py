"""Rendered lines of text with known truth, and what PP-OCR's recognition model makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from text import words

Pixels: TypeAlias = NDArray[np.uint8]
Feed: TypeAlias = dict[str, NDArray[Any]]
Recognize: TypeAlias = Callable[[Feed], NDArray[np.float32]]

_HEIGHT = 48
_WIDTH_STEP = 8
CALIBRATION, EVALUATION = 7, 1  # seeds: the lines of one are not those of the other


@cache
def fonts() -> list[Path]:
    """The text fonts that come with matplotlib."""
    folder = Path(matplotlib.get_data_path(), "fonts/ttf")
    return sorted(font for font in folder.glob("DejaVu*.ttf") if "Display" not in font.name)


def text_lines(count: int, seed: int) -> Iterator[tuple[str, Pixels]]:
    """Lines of one to four random words, and pictures of them, uint8 [height, width, 3].

    Font, size, contrast, blur and noise vary; the same seed gives the same lines.
    """
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    for _ in range(count):
        line = " ".join(draw.choice(words()) for _ in range(draw.randint(1, 4)))
        if draw.random() < 0.5:
            line = line.title()
        if draw.random() < 0.3:
            line += f" {draw.randint(0, 9999)}"
        yield line, _render(line, draw, noise)


def recognition_feed(image: Pixels) -> Feed:
    """The input of the recognition model: float32 [1, 3, 48, width], from -1 to 1.

    The width follows the picture's, padded with zeros to a multiple of 8.
    """
    height, width = image.shape[:2]
    scaled = max(16, -(-_HEIGHT * width // height))
    resized = Image.fromarray(image).resize((scaled, _HEIGHT), Image.Resampling.BILINEAR)
    pixels = (np.asarray(resized, np.float32)[..., ::-1] / 255 - 0.5) / 0.5
    padding = -scaled % _WIDTH_STEP
    padded = np.pad(pixels.transpose(2, 0, 1), ((0, 0), (0, 0), (0, padding)))
    return {"x": np.ascontiguousarray(padded[None])}


def read_charset(model: Path) -> list[str]:
    """The characters that the outputs stand for; the first is the blank of CTC."""
    text = ir.load(str(model)).metadata_props["character"]
    return ["", *text.splitlines(), " "]


def decode(probabilities: NDArray[np.float32], charset: list[str]) -> str:
    """The text of one line, greedily: the best character of each step, without repeats and blanks.

    Args:
        probabilities: [1, steps, characters].
        charset: From `read_charset`.
    """
    best = probabilities[0].argmax(axis=-1)
    kept = [k for previous, k in zip([0, *best[:-1]], best, strict=True) if k and k != previous]
    return "".join(charset[k] for k in kept)


def line_accuracy(
    recognize: Recognize, charset: list[str], lines: Iterable[tuple[str, Pixels]]
) -> float:
    """The share of lines read without any mistake, spaces included."""
    right = [decode(recognize(recognition_feed(image)), charset) == line for line, image in lines]
    return sum(right) / len(right)


def _render(line: str, draw: random.Random, noise: np.random.Generator) -> Pixels:
    font = ImageFont.truetype(str(draw.choice(fonts())), draw.randint(14, 40))
    left, top, right, bottom = font.getbbox(line)
    margin = draw.randint(2, 8)
    paper, ink = draw.randint(150, 255), draw.randint(0, 100)
    size = (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
    image = Image.new("RGB", size, (paper,) * 3)
    ImageDraw.Draw(image).text((margin - left, margin - top), line, font=font, fill=(ink,) * 3)
    image = image.filter(ImageFilter.GaussianBlur(draw.random() * 1.2))
    grain = noise.normal(0, draw.random() * 12, (image.height, image.width, 3))
    return np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
