"""`attngen run`: a program through every stage, on this machine, checked and compared."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen.cli.common import Subparsers, add_verb, bytes_text, seconds_text
from attngen.cli.options import add_call, add_program, load_program

if TYPE_CHECKING:
    import torch

    from attngen.api import Attention, Output

    Qkv = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_ROUNDS = 5
_TILE = 128


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "run",
        help="run a program on this machine, stage by stage, and check it against float64",
        description="Run a program on made or given input; show each stage; check; compare with PyTorch.",
        examples=[
            "attngen run sliding_window_sink",
            "attngen run causal --n 4096 --dtype bf16 --heads 32 --kv-heads 8",
            "attngen run my_mask.attn --qkv layer3.safetensors --set window=512",
        ],
    )
    add_program(parser)
    add_call(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when the check holds, 1 when it does not."""
    import torch

    spec = load_program(args)
    from attngen.cli.inputs import call_of
    from attngen.sample_values import with_samples

    query, key, value, given = call_of(args, spec)
    device = query.device
    tensors = with_samples(spec, (query, key, value), given)
    _line("program", _program_line(spec))
    _line("input", _input_line(query, key, value, args.qkv))
    _show_algebra(spec)
    _show_schedule(spec, query, key, tensors)
    if device.type == "cpu":
        _show_gpu_kernel(spec)
    with torch.no_grad():
        start = time.perf_counter()
        first = spec(query, key, value, **tensors)
        _synchronize(device)
        first_s = time.perf_counter() - start
        ok = _show_check(spec, (query, key, value), given, tensors, first)
        _show_times(spec, query, key, value, tensors, first_s)
    return 0 if ok else 1


def _line(label: str, text: str) -> None:
    head, *rest = text.splitlines() or [""]
    print(f"{label:<10}{head}", flush=True)
    for line in rest:
        print(f"{'':<10}{line}", flush=True)


def _program_line(spec: Attention) -> str:
    values = {p.name: spec.values.get(p.name, p.default) for p in spec.program.params}
    bound = ", ".join(f"{n} = {v}" for n, v in values.items())
    return f"{spec.program.name}({bound}) -> {', '.join(spec.outputs)}"


def _input_line(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, path: Path | None) -> str:
    made = "standard normal" if path is None else str(path)
    shapes = "  ".join(f"{n} {list(t.shape)}" for n, t in (("Q", query), ("K", key), ("V", value)))
    return f"{shapes}  {str(query.dtype).removeprefix('torch.')} on {query.device}, {made}"


def _show_algebra(spec: Attention) -> None:
    derivation = spec.derivation()
    used: dict[str, list[str]] = {}
    for rule in derivation.rules:
        used.setdefault(rule.rule, []).append(rule.target)
    rules = "; ".join(f"{rule} on {', '.join(dict.fromkeys(targets))}" for rule, targets in used.items())
    _line(
        "algebra", f"{derivation.passes_written} passes over the keys as written, {derivation.passes} derived"
    )
    if rules:
        _line("", rules)
    for step in derivation.notes if derivation.passes > 1 else ():
        _line("", step)


def _show_schedule(spec: Attention, query: torch.Tensor, key: torch.Tensor, tensors: dict[str, Any]) -> None:
    from attngen import blockmap, pipeline
    from attngen.analysed import analyse

    if query.dim() != 4 or key.dim() != 4:
        return  # the call itself says what is wrong
    start = time.perf_counter()
    s = spec.schedule(query.shape[2], key.shape[2], query.shape[0], query.shape[1], _TILE, _TILE, **tensors)
    took = time.perf_counter() - start
    total = max(1, s.n_full + s.n_partial + s.n_empty)
    plan = pipeline.plan_of(analyse(spec.program))
    _line(
        "schedule",
        f"{plan.form}: {s.n_full} full, {s.n_partial} partial, {s.n_empty} empty tiles of {_TILE} x {_TILE} "
        f"({(s.n_full + s.n_partial) / total:.0%} visited), {bytes_text(s.nbytes)} of metadata, "
        f"planned in {seconds_text(took)}",
    )
    _line("", blockmap.to_text(s.tiles()[0, 0].numpy(), most=24))
    _line("", blockmap.LEGEND)


def _show_gpu_kernel(spec: Attention) -> None:
    """Compile for a GPU that is not here: the second half of what a newcomer comes to see."""
    from attngen.errors import CompilerNotFoundError, UnsupportedError

    sweeps = spec.derivation().passes
    for sweep in range(sweeps):
        which = f"sweep {sweep}, " if sweeps > 1 else ""
        start = time.perf_counter()
        try:
            figures = spec.inspect("sm_90", "bf16", 128, sweep=sweep)
        except (CompilerNotFoundError, UnsupportedError) as error:
            _line("triton", f"{which}not compiled: {error.message}")
            return
        _line(
            "triton",
            f"{which}sm_90, bf16, head_dim 128: {figures.registers} registers, {figures.spill_bytes} bytes spilled, "
            f"{bytes_text(figures.shared_bytes)} shared ({seconds_text(time.perf_counter() - start)})",
        )


def _show_check(
    spec: Attention, qkv: Qkv, given: Mapping[str, Any], tensors: Mapping[str, Any], result: Output
) -> bool:
    from attngen.cli.check import checked

    checks, tokens = checked(spec, qkv, given, tensors, result)
    about = "" if tokens is None else f" of a call with {tokens} tokens"
    for c in checks:
        verdict = "ok" if c.ok else "NOT WITHIN THE RULE"
        part = f"{c.rows} rows a head" if c.rows else f"all {c.entries} entries"
        _line(
            "check",
            f"{c.output}: largest error against float64 {c.error:.2e}, allowed {c.allowed:.2e}, {verdict} "
            f"({part}{about})",
        )
    return all(c.ok for c in checks)


def _show_times(
    spec: Attention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tensors: dict[str, Any],
    first_s: float,
) -> None:
    from attngen.bench.peers import dense_peers
    from attngen.bench.timing import alternate

    candidates = {"attngen": lambda: spec(query, key, value, **tensors)}
    peers = dense_peers(spec, query, key, value, tensors)
    timings = alternate({**candidates, **peers}, rounds=_ROUNDS)
    _line(
        "time",
        f"{seconds_text(timings.median('attngen'))} a call (first call, with planning and building: "
        f"{seconds_text(first_s)})",
    )
    for name in peers:
        ratio = timings.ratio(name, "attngen")
        _line("", f"{name}: {seconds_text(timings.median(name))}, attngen is {ratio:.2f}x as fast")


def _synchronize(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
