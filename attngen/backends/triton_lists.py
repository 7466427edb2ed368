"""Block lists from a map of classes by the two small kernels of `templates/triton/lists.py.jinja`.

What `planner.device_blocks.device_lists` does with tensor operations, in two reads of the map.
"""

from __future__ import annotations

from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

import torch

from attngen.planner.found import check_count
from attngen.planner.plan import DeviceBlockLists
from attngen.resources import data_dir

_MOST_COLUMNS = 1024  # key tiles looked at at once


def compress(classes: torch.Tensor) -> DeviceBlockLists:
    """The lists of an int8 map `[B|1, H|1, query tiles, key tiles]` of classes, without waiting for the device."""
    batch, heads, n_rows, n_columns = classes.shape
    check_count(classes.numel())
    classes = classes.contiguous()
    rows, device = batch * heads * n_rows, classes.device
    ptr = torch.zeros((2, rows + 1), dtype=torch.int32, device=device)
    index = torch.empty(max(classes.numel(), 1), dtype=torch.int32, device=device)
    if classes.numel():
        kernels = _kernels()
        block = min(1 << (n_columns - 1).bit_length(), _MOST_COLUMNS)
        with torch.cuda.device_of(classes):
            kernels.count[(rows,)](classes, ptr[0], ptr[1], n_columns, BLOCK=block)
            ptr = torch.cumsum(ptr, 1, dtype=torch.int32)
            ptr[1] += ptr[0, -1]
            kernels.write[(rows,)](classes, ptr[0], ptr[1], index, n_columns, BLOCK=block)
    return DeviceBlockLists(batch, heads, n_rows, n_columns, ptr[0], index, ptr[1], index)


@cache
def _kernels() -> Any:
    """The module of the kernels; its text is a template without blanks, so that Triton is imported at its first use."""
    path = data_dir("templates") / "triton" / "lists.py.jinja"
    loader = SourceFileLoader("attngen_kernels.lists", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module
