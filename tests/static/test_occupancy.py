"""Thread blocks that fit, by hand."""

from __future__ import annotations

import pytest

from attngen.static.occupancy import cu_occupancy, sm_occupancy
from attngen.static.report import Occupancy


@pytest.mark.parametrize(
    ("arch", "registers", "num_warps", "shared", "columns", "expected"),
    [
        # 208 registers of 32 lanes leave two warps of a sub-partition: one block of eight
        ("sm_90", 203, 8, 131072, 0, Occupancy(1, 2.0, ("registers", "shared"))),
        ("sm_90", 127, 8, 65536, 0, Occupancy(2, 4.0, ("registers",))),
        ("sm_90", 129, 8, 65536, 0, Occupancy(1, 2.0, ("registers",))),
        ("sm_90", 32, 4, 0, 0, Occupancy(16, 16.0, ("registers", "warps"))),
        ("sm_80", 32, 1, 0, 0, Occupancy(32, 8.0, ("ctas",))),
        ("sm_80", 64, 4, 83 << 10, 0, Occupancy(1, 1.0, ("shared",))),
        ("sm_80", 64, 4, 81 << 10, 0, Occupancy(2, 2.0, ("shared",))),  # twice 81 KiB and 1 KiB kept
        ("sm_86", 64, 4, 100 << 10, 0, Occupancy(0, 0.0, ("shared",))),
        ("sm_100", 64, 4, 1024, 512, Occupancy(1, 1.0, ("tensor memory",))),
    ],
)
def test_of_an_sm(arch, registers, num_warps, shared, columns, expected):
    found = sm_occupancy(
        arch, registers=registers, num_warps=num_warps, shared_bytes=shared, tensor_columns=columns
    )
    assert found == expected


@pytest.mark.parametrize(
    ("vector", "scalar", "num_warps", "lds", "expected"),
    [
        (213, 106, 4, 32768, Occupancy(2, 2.0, ("registers", "shared"))),  # 512 over 216
        (128, 32, 4, 1024, Occupancy(4, 4.0, ("registers",))),
        (64, 100, 4, 0, Occupancy(7, 7.0, ("scalar registers",))),  # 800 over 112
        (32, 32, 4, 0, Occupancy(8, 8.0, ("warps",))),
        (32, 32, 4, 33 << 10, Occupancy(1, 1.0, ("shared",))),
        (32, 32, 2, 0, Occupancy(16, 8.0, ("warps", "ctas"))),
        (256, 32, 16, 0, Occupancy(0, 0.0, ("registers",))),
    ],
)
def test_of_a_compute_unit(vector, scalar, num_warps, lds, expected):
    assert cu_occupancy(vector=vector, scalar=scalar, num_warps=num_warps, lds_bytes=lds) == expected
