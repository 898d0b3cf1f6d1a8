"""Speech with known truth, spoken by eSpeak NG, and the state that silero VAD carries through it.

The library comes inside the package espeakng-loader; it is called through ctypes.
"""

from __future__ import annotations

import ctypes
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import espeakng_loader
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly
from text import verses

Feed: TypeAlias = dict[str, NDArray[Any]]
Sound: TypeAlias = NDArray[np.float32]
Detect: TypeAlias = Callable[[Feed], tuple[NDArray[Any], NDArray[Any]]]

RATE = 16000
_FRAME, _CONTEXT = 512, 64  # samples that silero VAD judges, and sees of those before
_VOICES = ("en-us", "en-gb", "de", "fr", "es", "it")
_RETRIEVAL, _UTF8 = 1, 1  # espeak_AUDIO_OUTPUT, espeakCHARS
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.c_void_p
)
_PITCH, _SPEED = 3, 1  # espeak_PARAMETER


def recording(seed: int, sentences: int = 4) -> tuple[Sound, NDArray[np.bool_]]:
    """Spoken sentences with pauses, in noise; and for each frame of 512 samples if there is speech.

    Returns:
        Float32 [frames * 512] at 16 kHz, from -1 to 1, and bool [frames].
    """
    draw, noise, voice = random.Random(seed), np.random.default_rng(seed), _espeak()
    parts: list[Sound] = []
    for _ in range(sentences):
        parts.append(np.zeros(round(RATE * draw.uniform(0.6, 2)), np.float32))
        words = draw.choice(verses()).split()[:12]
        parts.append(_speak(voice, " ".join(words), draw) * draw.uniform(0.3, 1))
    clean = np.concatenate([*parts, np.zeros(RATE, np.float32)])
    frames = clean[: len(clean) // _FRAME * _FRAME].reshape(-1, _FRAME)
    truth = np.sqrt((frames**2).mean(axis=1)) > 0.004
    loudness = draw.choice((0.0, 0.002, 0.01))
    noisy = frames.ravel() + noise.normal(0, loudness, frames.size)
    return noisy.astype(np.float32), truth


def detect(sound: Sound, run: Detect) -> tuple[NDArray[np.float32], list[Feed]]:
    """The probability of speech in each frame, and every feed on the way.

    Args:
        sound: From `recording`.
        run: Takes a feed; gives the model's outputs `output` and `stateN`.
    """
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(_CONTEXT, np.float32)
    found, feeds = [], []
    for frame in sound.reshape(-1, _FRAME):
        heard = np.concatenate([context, frame])[None]
        feed = {"input": heard, "sr": np.array(RATE, np.int64), "state": state}
        probability, state = run(feed)
        context = frame[-_CONTEXT:]
        found.append(float(probability[0, 0]))
        feeds.append(feed)
    return np.array(found, np.float32), feeds


def recordings(count: int, seed: int) -> Iterator[tuple[Sound, NDArray[np.bool_]]]:
    """Several recordings; the same seed gives the same ones."""
    return (recording(1000 * seed + index) for index in range(count))


def _speak(voice: tuple[Any, int], text: str, draw: random.Random) -> Sound:
    library, rate = voice
    heard: list[NDArray[np.int16]] = []

    def listen(samples: Any, count: int, _events: Any) -> int:  # noqa: ANN401
        if samples and count:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(listen)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetVoiceByName(draw.choice(_VOICES).encode())
    library.espeak_SetParameter(_PITCH, draw.randint(25, 75), 0)
    library.espeak_SetParameter(_SPEED, draw.randint(130, 200), 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    spoken = np.concatenate(heard).astype(np.float64) / 32768
    return np.asarray(resample_poly(spoken, RATE, rate), np.float32)


def _espeak() -> tuple[Any, int]:
    """The library, in a copy that has said nothing yet, and its sampling rate.

    What it says depends on what it has said before, and starting it again does not change that.
    """
    with tempfile.NamedTemporaryFile(suffix=".so") as copy:
        shutil.copyfile(espeakng_loader.get_library_path(), copy.name)
        library = ctypes.CDLL(copy.name)
    path = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(_RETRIEVAL, 0, path, 0)
    if rate <= 0:
        raise RuntimeError("eSpeak NG did not start.")
    return library, rate
