"""How far the predictions of a language model are from those of its float original.

    perplexity = exp(mean of -log q(next token))
    KL         = mean over places of sum over tokens of p (log p - log q), in nats
    top-1      = share of places where the likeliest token is the same

with p of the float model and q of the other, each window of tokens judged apart.
"""

from dataclasses import dataclass

import numpy as np
from data import token_feed

from onnxq import runtime


@dataclass(frozen=True)
class Distance:
    """Of one model from its original.

    Attributes:
        perplexity: Of the model.
        ratio: To the original's perplexity.
        kl: In nats per token.
        top1: From 0 to 1.
    """

    perplexity: float
    ratio: float
    kl: float
    top1: float

    def __str__(self):
        return (
            f"perplexity {self.perplexity:.3f} ({self.ratio:.3f} times float's), "
            f"KL {self.kl:.4f}, top-1 {self.top1:.3f}"
        )


def distances(original, models, windows):
    """The distance of each of `models` from `original`, by path, on token ids [windows, tokens]."""
    sessions = [runtime.session(path) for path in (original, *models)]
    sums = np.zeros((len(sessions), 3))
    for window in windows:
        first = None
        for index, session in enumerate(sessions):
            found = _log_probabilities(session, window)
            first = found if first is None else first
            sums[index] += _sums(first, found, window)
    predicted, places = windows[:, 1:].size, windows.size
    losses = sums[:, 0] / predicted
    return [
        Distance(float(np.exp(loss)), float(np.exp(loss - losses[0])), kl / places, same / places)
        for loss, (_, kl, same) in zip(losses[1:], sums[1:], strict=True)
    ]


def _log_probabilities(session, window):
    (logits,) = session.run(["logits"], token_feed(window))
    shifted = logits[0] - logits[0].max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64))[:, None].astype("f4")


def _sums(p, q, window):
    loss = -q[np.arange(len(window) - 1), window[1:]].sum(dtype=np.float64)
    kl = np.einsum("ij,ij->i", np.exp(p), p - q).sum(dtype=np.float64)
    return loss, kl, (p.argmax(axis=-1) == q.argmax(axis=-1)).sum()
