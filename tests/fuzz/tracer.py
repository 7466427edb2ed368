"""Functions of Python, as users write masks and scores: every operator, torch calls, captures, and mistakes.

What a function raises by itself, of its own values, is its user's to see as it is.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attngen
from attngen.api import Attention

_CAPTURED: dict[str, Any] = {
    "torch": torch,
    "t_int": torch.arange(12, dtype=torch.int32),
    "t_float": torch.linspace(-1, 1, 12),
    "t_two": torch.arange(12).reshape(3, 4),
    "t_bool": torch.arange(12) % 2 == 0,
    "t_none": torch.empty(0),
    "array": np.arange(5),
    "number": 7,
    "real": 0.5,
    "text": "no",
    "nothing": None,
    "items": [1, 2, 3],
}
_UNARY = (
    "-{a}",
    "~{a}",
    "+{a}",
    "abs({a})",
    "not {a}",
    "int({a})",
    "float({a})",
    "bool({a})",
    "len({a})",
    "round({a})",
)
_BINARY_TEXT = "+ - * / // % ** < <= > >= == != & | ^ << >> @ and or is in"
_BINARY = _BINARY_TEXT.split()
_TORCH_TEXT = """
    where exp log sqrt tanh sigmoid abs minimum maximum clamp logical_and logical_or logical_not floor sign exp2
    relu sin cos erf pow remainder floor_divide softmax matmul sum zeros_like ones_like full_like cumsum isnan
"""
_TORCH = _TORCH_TEXT.split()
_METHODS_TEXT = """
    abs exp clamp float int bool to item long sum max view T shape sigmoid log dtype where add mul no_such
"""
_METHODS = _METHODS_TEXT.split()
_FILE = "<fuzz>"


def one(rng: random.Random, held: list[str]) -> None:
    """One function, traced and put into a specification."""
    kind = rng.choice(("mask", "score"))
    text = _function(rng, kind)
    held.append(text)
    space = dict(_CAPTURED)
    exec(compile(text, _FILE, "exec"), space)  # the text is made here
    function = space["function"]
    spec = Attention(mask=function) if kind == "mask" else Attention(score=function)
    spec.text()
    attngen.mask(function) if kind == "mask" else attngen.score(function)


def is_own(error: BaseException) -> bool:
    """Whether the user's function raised it of itself: no code of ours ran below it but what hands on to torch."""
    below = False
    ours = str(Path(attngen.__file__).parent)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == _FILE:
            below = True
        elif below and file.startswith(ours) and not file.endswith("tracing_mode.py"):
            return False
        trace = trace.tb_next
    return below


def _function(rng: random.Random, kind: str) -> str:
    args = ["b", "h", "q", "k"] if kind == "mask" else ["s", "b", "h", "q", "k"]
    if rng.random() < 0.05:
        args = args[: rng.randrange(len(args))]
    names = [*args * 4, "number", "real"]
    if rng.random() < 0.3:  # what mostly is a mistake
        names += [n for n in _CAPTURED if n != "torch"]
    lines = [f"def function({', '.join(args)}):"]
    for i in range(rng.randint(0, 4)):
        statement = rng.random()
        value = _expr(rng, names, rng.randint(0, 4))
        if statement < 0.75:
            lines.append(f"    v{i} = {value}")
            names.append(f"v{i}")
        elif statement < 0.85:
            lines.append(
                f"    if {value}:\n        v{i} = {_expr(rng, names, 2)}\n    else:\n        v{i} = 0"
            )
            names.append(f"v{i}")
        elif statement < 0.92:
            lines.append(f"    v{i} = 0\n    for x in {value}:\n        v{i} = v{i} + x")
            names.append(f"v{i}")
        else:
            lines.append(f"    v{i} = [{value} for _ in range(3)][{rng.randint(-1, 3)}]")
            names.append(f"v{i}")
    lines.append(f"    return {_expr(rng, names, rng.randint(0, 6))}")
    return "\n".join(lines) + "\n"


def _expr(rng: random.Random, names: list[str], depth: int) -> str:
    if depth <= 0 or rng.random() < 0.1:
        return rng.choice(
            (*names, "0", "1", "-3", "2.5", "True", "1e30", "10**20", "float('nan')", "float('inf')")
        )
    a, b, c = (_expr(rng, names, depth - 1 - rng.randrange(2)) for _ in range(3))
    match rng.randrange(8):
        case 0:
            return "(" + rng.choice(_UNARY).format(a=a) + ")"
        case 1 | 2 | 3:
            return f"({a} {rng.choice(_BINARY)} {b})"
        case 4:
            count = rng.randint(1, 3)
            return f"torch.{rng.choice(_TORCH)}({', '.join((a, b, c)[:count])})"
        case 5:
            return f"({a}).{rng.choice(_METHODS)}" + rng.choice(("", "()", f"({b})"))
        case 6:
            if rng.random() < 0.6:
                return rng.choice(
                    (f"t_int[{a}]", f"t_float[{a}]", f"t_bool[{a}]", f"t_two[{a}, {b}]", f"t_two[{a}][{b}]")
                )
            name = rng.choice(("t_int", "t_float", "t_two", "t_bool", "t_none", "array", "items", "text"))
            return f"{name}[{rng.choice((a, f'{a}, {b}', ':', '...', f'{a}:{b}', 'None'))}]"
        case _:
            return f"({a} if {b} else {c})"
