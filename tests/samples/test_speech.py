"""Recordings depend on their seed alone."""

import numpy as np
import speech


def test_the_same_seed_says_the_same_whatever_was_said_before():
    first, truth = speech.recording(2000)
    other, _ = speech.recording(2001)
    again, same = speech.recording(2000)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(same, truth)
    assert len(other) != len(first) or not np.array_equal(other, first)
