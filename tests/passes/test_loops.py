"""Ops in the body of a Loop: their values read from outside, and quantized."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq import observers
from onnxq.calib.feeds import open_feeds
from onnxq.calib.runner import calibrate
from onnxq.calib.taps import Taps, sizes
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, values_by_name

# Each round appends a row: shapes differ between iterations. The scan output is read by an op.
GROWING = """
g (int64 n, bool go, float[1, 64] x, float[64, 64] w1, float[64, 64] w2, float[64] wb)
=> (float[k, 64] y, float[n, 64] z)
{
    y, s = Loop (n, go, x) < body = b (int64 i, bool c, float[j, 64] h)
        => (bool c2, float[l, 64] next, float[64] last)
        {
            c2 = Identity(c)
            [inner] m = MatMul(h, w1)
            a = Add(m, wb)
            t = Tanh(a)
            next = Concat <axis = 0> (x, t)
            last = ReduceMean <axes = [0], keepdims = 0> (t)
        }
    >
    [outer] z = MatMul(s, w2)
}
"""
# A Loop in an If in a Loop; the inner one runs as often as the outer one has run before.
NESTED = """
g (int64 n, bool go, float[2, 64] x, float[64, 64] w1, float[64, 64] w2) => (float[2, 64] y)
<int64 two = {2}, int64 zero = {0}>
{
    y = Loop (n, go, x) < body = b (int64 i, bool c, float[2, 64] h) => (bool c2, float[2, 64] u)
        {
            c2 = Identity(c)
            r = Mod(i, two)
            odd = Cast <to = 9> (r)
            v = If (odd) <
                then_branch = t () => (float[2, 64] p) {
                    p = Loop (i, c, h) < body = d (int64 j, bool e, float[2, 64] f)
                        => (bool e2, float[2, 64] q)
                        { e2 = Identity(e) [deep] g2 = MatMul(f, w1) q = Tanh(g2) } >
                },
                else_branch = o () => (float[2, 64] k) { [other] l = MatMul(h, w2) k = Neg(l) }
            >
            u = Add(h, v)
        }
    >
}
"""


def model(graph):
    return with_weights(graph, opset=13)


def feed(rounds, seed=0, rows=1):
    x = np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32)
    return {"n": np.array(rounds), "go": np.array(True), "x": x}


def taps(given, names, **inputs):
    (sample,) = open_feeds([inputs], given)
    return dict(zip(names, Taps(given, names).run(sample), strict=True))


def weights(given):
    return {name: value.const_value.numpy() for name, value in given.graph.initializers.items()}


def test_every_iteration_is_read():
    growing = model(GROWING)
    w = weights(growing)
    found = taps(growing, ["s", "h", "t", "z", "next", "x"], **feed(3))
    h = x = feed(3)["x"]
    assert [array.shape[0] for array in found["h"]] == [1, 2, 3]
    for tapped_h, tapped_t, following in zip(*(found[n] for n in ("h", "t", "next")), strict=True):
        np.testing.assert_allclose(tapped_h, h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(tapped_t, np.tanh(h @ w["w1"] + w["wb"]), rtol=1e-4, atol=1e-5)
        h = np.concatenate([x, tapped_t])
        np.testing.assert_array_equal(following, h)
    (s,), (z,) = found["s"], found["z"]
    np.testing.assert_allclose(s, [t.mean(axis=0) for t in found["t"]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(z, s @ w["w2"], rtol=1e-4, atol=1e-5)


def test_values_of_nested_graphs():
    nested = model(NESTED)
    w = weights(nested)
    found = taps(nested, ["g2", "l", "h", "f"], **feed(4, rows=2))
    h = feed(4, rows=2)["x"]
    deep, other = iter(found["g2"]), iter(found["l"])
    for round_ in range(4):
        if round_ % 2:
            assert next(other).size == 0
            v = h
            for _ in range(round_):
                product = next(deep)
                np.testing.assert_allclose(product, v @ w["w1"], rtol=1e-3, atol=1e-5)
                v = np.tanh(product)
        else:
            assert next(deep).size == 0
            product = next(other)
            np.testing.assert_allclose(product, h @ w["w2"], rtol=1e-3, atol=1e-5)
            v = -product
        h = h + v
    assert not [*deep, *other]
    assert len(found["h"]) == 4


def test_a_loop_that_does_not_run():
    assert taps(model(GROWING), ["h", "t"], **feed(0)) == {"h": [], "t": []}


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_totals_and_sizes_are_over_all_iterations(rounds):
    nested = model(NESTED)
    names = ["g2", "l", "h"]
    (sample,) = open_feeds([feed(rounds, rows=2)], nested)
    arrays = dict(zip(names, Taps(nested, names).run(sample), strict=True))
    assert sizes(nested, names, sample) == {
        name: sum(a.nbytes for a in several) for name, several in arrays.items()
    }
    editor = Editor(nested)
    exposer, values = Exposer(editor), values_by_name(nested)
    sums = [
        editor.node(
            "ReduceSum",
            [values[name]],
            name=f"{name}_sum",
            after=values[name].producer(),
            graph=values[name].graph,
            attributes={"keepdims": 0},
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape([]),
        )
        for name in names
    ]
    nested.graph.outputs[:] = [exposer.total(value) for value in sums]
    onnx.checker.check_model(ir.to_proto(nested), full_check=True)
    found = compute(nested, **sample.feed)
    expected = [sum(float(a.sum()) for a in arrays[name]) for name in names]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_iterations_are_like_feeds():
    growing = model(GROWING)
    feeds = open_feeds([feed(4, seed) for seed in range(3)], growing)
    store = calibrate(growing, feeds, {"h": -1}, observers.get("minmax"))
    taps_of = Taps(growing, ["h"])
    every = np.concatenate([array for sample in feeds for array in taps_of.run(sample)[0]])
    np.testing.assert_array_equal(store.states["h"]["max"], every.max(axis=0))


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize(
    ("graph", "rows", "names"),
    [(GROWING, 1, {"inner", "outer"}), (NESTED, 2, {"deep", "other"})],
)
def test_int8_agrees_with_float(graph, rows, names, target):
    given = model(graph)
    calibration = [feed(4, seed, rows) for seed in range(20)]
    result = onnxq.quantize(given, preset="int8", target=target, calibration=calibration)
    decisions = {d.node: d for d in result.report.decisions}
    assert {name for name, each in decisions.items() if each.action == "int8"} == names
    assert all(decisions[name].numbers["sqnr_db"] > 20 for name in names)
    held = [feed(rounds, 100 + rounds, rows) for rounds in (1, 3, 4)]
    assert onnxq.compare(given, result.model, held).min_sqnr_db > 25
