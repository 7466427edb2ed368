"""The vector functions of the C++ templates, each against float64 on dense grids and on the special values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.emit.cpp_harness import build, call, lane_loop

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 1e-39, 3e38, -3e38, 1.0, -1.0], np.float32)

# Function, float64 meaning, interval, ulps. An interval stops where the result leaves fp32's normal numbers.
GRIDS = [
    ("vexp2", torch.exp2, (-125.0, 127.99), 2.0),
    ("vexp2", torch.exp2, (-1.0, 1.0), 2.0),
    ("vexp", torch.exp, (-86.5, 88.7), 2.0),
    ("vexp", torch.exp, (-1.0, 1.0), 2.0),
    ("vlog", torch.log, (1e-3, 10.0), 2.0),
    ("vlog", torch.log, (0.9, 1.1), 2.0),
    ("vlog", torch.log, (1e-44, 1e-37), 2.0),
    ("vlog", torch.log, (1.0, 3e38), 2.0),
    ("vlog2", torch.log2, (0.9, 1.1), 4.0),
    ("vlog2", torch.log2, (1e-3, 1e5), 2.0),
    ("vtanh", torch.tanh, (-10.0, 10.0), 3.0),
    ("vtanh", torch.tanh, (-0.7, 0.7), 3.0),
    ("vsigmoid", torch.sigmoid, (-85.0, 20.0), 3.0),
    ("verf", torch.erf, (-5.0, 5.0), 3.0),
    ("verf", torch.erf, (-1.1, 1.1), 3.0),
    ("vsqrt", torch.sqrt, (0.0, 1e6), 0.5),
]
EXACT = [
    ("vround", torch.round),
    ("vfloor", torch.floor),
    ("vceil", torch.ceil),
    ("vabs", torch.abs),
]
OTHERS = ("vsin", "vcos", "vsign", "vfinite", "round_bfloat16", "round_float16")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    names = {name for name, *_ in GRIDS} | {name for name, _ in EXACT} | set(OTHERS)
    text = "".join(lane_loop(f"run_{n}", "vf", {"x": "vf"}, f"{n}(x)") for n in sorted(names))
    halves = """
extern "C" void halves(float* out, const float16* x, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, load_lanes(x + i));
}
extern "C" void store_half(float16* out, const float* x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) store_element(out + i, round_float16(splat<vf>(x[i]))[0]);
}
extern "C" void store_brain(bfloat16* out, const float* x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) store_element(out + i, round_bfloat16(splat<vf>(x[i]))[0]);
}
"""
    return build(text + halves, tmp_path_factory.mktemp("math"))


def run(library, name, x):
    return call(library, f"run_{name}", np.float32, [np.asarray(x, np.float32)], len(x))


@pytest.mark.parametrize(("name", "exact", "interval", "ulps"), GRIDS)
def test_error_in_ulps(library, name, exact, interval, ulps):
    x = np.linspace(*interval, 1 << 18).astype(np.float32)
    want = exact(torch.from_numpy(x).double()).numpy()
    spacing = np.spacing(np.maximum(np.abs(want), np.finfo(np.float32).tiny).astype(np.float32)).astype(
        np.float64
    )
    error = np.abs(run(library, name, x) - want) / spacing
    worst = int(np.argmax(error))
    assert error[worst] <= ulps, f"{error[worst]:.2f} ulp at {x[worst]!r}"


@pytest.mark.parametrize(("name", "exact"), EXACT)
def test_exact_functions(library, name, exact):
    x = np.concatenate([SPECIAL, np.linspace(-5, 5, 41), [2.5, 3.5, 8388609.5, -2147483648.0]]).astype(
        np.float32
    )
    np.testing.assert_array_equal(run(library, name, x), exact(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("name", ["vsin", "vcos"])
def test_circular_functions(library, name):
    x = np.concatenate([np.linspace(-9000, 9000, 1 << 17), np.linspace(-4, 4, 1 << 14), [1e5, 1e10, -3e38]])
    x = x.astype(np.float32)
    want = getattr(torch, name[1:])(torch.from_numpy(x).double()).numpy()
    assert np.abs(run(library, name, x) - want).max() <= 2 * 2**-24 * 1.01


@pytest.mark.parametrize(
    "name", ["vexp2", "vexp", "vlog", "vlog2", "vtanh", "vsigmoid", "verf", "vsqrt", "vsin", "vcos", "vsign"]
)
def test_special_values(library, name):
    want = getattr(torch, name[1:])(torch.from_numpy(SPECIAL)).numpy()
    if name == "vsign":
        want[0] = np.nan  # PyTorch calls the sign of a NaN 0; the language keeps the NaN visible
    got = run(library, name, SPECIAL)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1.2e-38)


def test_exponentials_of_masked_and_hopeless_scores_are_zero(library):
    x = np.array([-np.inf, -1e30, -1000.0, -200.0], np.float32)
    for name in ("vexp2", "vexp", "vsigmoid"):
        assert (run(library, name, x) == 0).all()


def test_every_nan_stays_one(library):
    payloads = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC12345, 0xFF800001], np.uint32).view(
        np.float32
    )
    for name in (
        "vexp2",
        "vexp",
        "vlog",
        "vtanh",
        "vsigmoid",
        "verf",
        "vfinite",
        "round_bfloat16",
        "round_float16",
    ):
        assert np.isnan(run(library, name, payloads)).all(), name


@pytest.mark.parametrize(
    ("name", "dtype"), [("round_bfloat16", torch.bfloat16), ("round_float16", torch.float16)]
)
def test_rounding_to_16_bits_is_to_nearest_even(library, name, dtype):
    bits = np.arange(0, 1 << 32, 4093, dtype=np.uint64).astype(np.uint32)
    ties = (np.arange(0, 1 << 16, dtype=np.uint32) << 16) | 0x8000
    x = np.concatenate([bits, ties, ties + 0x1000, ties - 1]).view(np.float32)
    want = torch.from_numpy(x).to(dtype).float().numpy()
    np.testing.assert_array_equal(run(library, name, x), want)


def test_16_bit_elements_are_read_and_written_exactly(library):
    every = torch.arange(0, 1 << 16).to(torch.int32).to(torch.uint16).view(torch.float16)
    raw = every.view(torch.uint16).numpy()
    wide = call(library, "halves", np.float32, [raw], len(raw))
    np.testing.assert_array_equal(wide, every.float().numpy())
    for name, dtype in (("store_half", torch.float16), ("store_brain", torch.bfloat16)):
        x = torch.cat([every.float(), torch.linspace(-7e4, 7e4, 1 << 14)]).numpy()
        got = torch.from_numpy(call(library, name, np.uint16, [x], len(x))).view(dtype)
        want = torch.from_numpy(x).to(dtype)
        assert torch.equal(got.isnan(), want.isnan())
        assert torch.equal(got[~got.isnan()], want[~want.isnan()])
