"""Outputs in parts: what is large does not hide what is small."""

import numpy as np
import pytest

from onnxq.parts import Parts


def parts(expected, noise):
    found = Parts()
    for each in expected if isinstance(expected, list) else [expected]:
        array = np.asarray(each, float)
        found.add({"y": array}, {"y": array + noise})
    return found.all()


@pytest.mark.parametrize("transposed", [False, True])
def test_boxes_do_not_hide_scores(transposed):
    generator = np.random.default_rng(0)
    output = np.concatenate(
        [generator.uniform(0, 320, (1, 4, 100)), generator.uniform(0, 1, (1, 6, 100))], axis=1
    )
    scores = 10 * np.log10((output[:, 4:] ** 2).mean() / 0.25)
    found = parts(output.transpose(0, 2, 1) if transposed else output, 0.5)
    by_name = {part.name: part.sqnr for part in found}
    assert by_name["output 'y'"] > 40
    axis = 2 if transposed else 1
    assert by_name[f"output 'y' (channels 4-9 of axis {axis})"] == pytest.approx(scores, abs=0.01)
    assert found[0].sqnr <= scores + 0.01


def test_channels_that_are_as_good_as_zero_have_no_say():
    output = np.ones((1, 2, 50))
    output[:, 1] = 1e-6
    assert parts(output, 1e-3)[0].sqnr == pytest.approx(57, abs=0.1)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (1, 2, 3, 4)])
def test_outputs_of_any_rank(shape):
    assert parts(np.ones(shape), 0.1)[0].sqnr == pytest.approx(20)
    assert parts(np.ones(shape), 0)[0].sqnr == np.inf


def test_an_axis_that_changes_in_size_holds_no_channels():
    lines = [np.ones((1, length, 3)) * [1, 10, 100] for length in (5, 7, 6)]
    assert {part.axis for part in parts(lines, 0.1)} == {None, 2}
    assert parts(lines, 0.1)[0].sqnr == pytest.approx(20)


def test_integers_have_no_noise_to_speak_of():
    found = Parts()
    found.add({"y": np.arange(3)}, {"y": np.arange(3)})
    assert found.all() == []


def test_one_sample_that_is_far_off_does_not_hide_the_others():
    found = Parts()
    for noise in (1e-3, 1e-3, 1e-3, 10.0):
        found.add({"y": np.ones(100)}, {"y": np.ones(100) + noise})
    (part,) = found.all()
    assert part.sqnr == pytest.approx(-14, abs=0.1)
    assert part.typical == pytest.approx((60 * 3 - 20) / 4)


def test_noise_of_no_account_is_all_the_same():
    (a,), (b,) = parts(np.ones(100), 0), parts(np.ones(100), 1e-4)
    assert a.typical == b.typical == pytest.approx(60)
