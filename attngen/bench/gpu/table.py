"""A report for people: a line an entry while the suite runs, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attngen.bench.gpu.report import Report

_LONG = 200


def line(entry: Mapping[str, Any]) -> str:
    """One entry in one line."""
    return f"{entry.get('name', '')}: {_LINES[entry['kind']](entry)}"


def markdown(report: Report) -> str:
    """The page: where and how, the goals first, then each step."""
    facts = report.machine
    parts = [
        "# attngen on a GPU",
        f"{facts.get('gpu', 'no GPU: nothing was launched')}; driver {facts.get('nvidia_driver_version')}, CUDA "
        f"{facts.get('cuda')}, torch {facts.get('torch')}, triton {facts.get('triton')}, attngen "
        f"{facts.get('attngen')}; {facts.get('date')}.",
        f"Status: **{report.status}** after {report.seconds:.0f} s.",
        *(f"- {name}: {text}" for name, text in report.protocol.items()),
        _steps(report),
        _goals(report.entries("measured")),
        _peers(report.entries("measured")),
        _compiled(report.entries("compiled")),
        _agreements(report.entries("agreement")),
        _listed("compute-sanitizer", report.entries("sanitized")),
        _listed("Tuning", report.entries("tuned")),
        _listed("Notes", report.entries("note")),
        _listed("Failures", report.entries("failed")),
    ]
    lines: list[str] = []
    for part in (p for p in parts if p):
        both = part.startswith("- ") and bool(lines) and lines[-1].startswith("- ")
        lines += [part] if both or not lines else ["", part]
    return "\n".join(lines) + "\n"


def _steps(report: Report) -> str:
    rows = [
        [s.name, s.status, f"{s.seconds:.0f}", str(len(s.entries)), _short(s.error)] for s in report.steps
    ]
    return _section("Steps", ("step", "status", "s", "entries", "error"), rows)


def _goals(entries: Sequence[Mapping[str, Any]]) -> str:
    rows: list[list[str]] = []
    for e in sorted(entries, key=_goal_number):
        judged = e["judged"]
        if judged is None:
            continue
        verdict = f"**{judged['verdict']}**" if judged["verdict"] else f"not judged: {judged['reason']}"
        stretch = "" if judged["stretch"] is None else _number(judged["stretch"])
        asked = "≥" if judged["unit"] in ("TF/s", "x", "% of bandwidth") else "≤"
        value = f"{_number(judged['value'])} {judged['unit']}"
        notes = "; ".join(filter(None, (*e["shrunk"], e["note"])))
        rows.append(
            [e["goal"], e["name"], value, f"{asked} {_number(judged['must'])}", stretch, verdict, notes]
        )
    return _section("Goals", ("goal", "workload", "figure", "must", "stretch", "verdict", "note"), rows)


def _goal_number(entry: Mapping[str, Any]) -> int:
    return int(entry["goal"][1:]) if entry["goal"] else 99


def _peers(entries: Sequence[Mapping[str, Any]]) -> str:
    """A table a workload would be long: a row a workload, its candidates in a cell each line."""
    rows: list[list[str]] = []
    for e in entries:
        for name, ms in e["ms"].items():
            rate = e["tflops"].get(name)
            ratio = e["ratio"].get(name)
            rows.append(
                [
                    e["name"] if name == next(iter(e["ms"])) else "",
                    name + (f" ({e['superset'][name]})" if name in e["superset"] else ""),
                    f"{ms:.4g}",
                    "" if rate is None else f"{rate:.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                    _number(e["host_us"].get(name)),
                    _number(e["planning_ms"].get(name)),
                    _number(e["error"]) if name == "attngen" else "",
                ]
            )
        rows += [["", f"{name}: {_short(reason)}", *[""] * 6] for name, reason in e["absent"].items()]
    head = ("workload", "candidate", "ms", "TFLOP/s", "ratio", "launch us", "planning ms", "error of allowed")
    return _section("Times", head, rows)


def _compiled(entries: Sequence[Mapping[str, Any]]) -> str:
    rows: list[list[str]] = []
    for e in entries:
        kernels = e["kernels"]
        pairs = "" if e["pairs"] is None else f"{e['pairs']:,}"
        cells = [e.get("goal", ""), e["name"], e["dtype"], pairs]
        if not kernels:
            rows.append(
                [*cells, "", "", "", "", _short(e["refused"]) or "no kernel: products of matrices alone"]
            )
        for k in kernels:
            tile = f"{k['block_q']}x{k['block_k']}, {k['num_warps']} warps, {k['num_stages']} stages"
            about = _short(e["schedule"]) if k is kernels[0] else ""
            numbers = [str(k["registers"]), str(k["spill_bytes"]), str(k["shared_bytes"])]
            rows.append([*(cells if k is kernels[0] else [""] * 4), tile, *numbers, about])
    head = (
        "goal",
        "program",
        "dtype",
        "pairs kept",
        "tile",
        "registers",
        "spilled B",
        "shared B",
        "schedule",
    )
    return _section("Compiled", head, rows)


def _agreements(entries: Sequence[Mapping[str, Any]]) -> str:
    """A row a program; a cell a dtype, the error as a part of what is allowed."""
    by_program: dict[str, dict[str, str]] = {}
    for e in entries:
        worst = e["worst"]
        cell = f"{worst:.2f}" if e["ok"] else f"**{_short(e['error']) or f'{worst:.2f}'}**"
        by_program.setdefault(e["program"], {})[e["dtype"]] = cell
    dtypes = list(dict.fromkeys(e["dtype"] for e in entries))
    rows = [[name, *(cells.get(d, "") for d in dtypes)] for name, cells in by_program.items()]
    good = sum(bool(e["ok"]) for e in entries)
    text = _section("Correctness", ("program", *dtypes), rows)
    about = f"{good} of {len(entries)} calls are within the rule; errors as parts of what it allows."
    return text and text.replace("\n\n", f"\n\n{about}\n\n", 1)


def _listed(title: str, entries: Sequence[Mapping[str, Any]]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line(e)}" for e in entries) if entries else ""


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]
    if not lines:
        return ""
    rule = "| " + " | ".join("---" for _ in head) + " |"
    return "\n".join([f"## {title}", "", "| " + " | ".join(head) + " |", rule, *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _ms(value: float | None) -> str:
    return "unmeasured" if value is None else f"{value:.4g} ms"


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _measured_line(e: Mapping[str, Any]) -> str:
    times = ", ".join(
        f"{name} {ms:.4g} ms" + (f" ({e['tflops'][name]:.0f} TFLOP/s)" if name in e["tflops"] else "")
        for name, ms in e["ms"].items()
    )
    judged = e["judged"]
    verdict = ""
    if judged is not None:
        verdict = f"; {e['goal']}: {_number(judged['value'])} {judged['unit']}, "
        verdict += judged["verdict"] or f"not judged, {judged['reason']}"
    return times + verdict


def _compiled_line(e: Mapping[str, Any]) -> str:
    if e["refused"]:
        return f"refused, {_short(e['refused'])}"
    if not e["kernels"]:
        return "no kernel: products of matrices alone"
    return "; ".join(
        f"{k['registers']} registers, {k['spill_bytes']} B spilled, {k['shared_bytes']} B shared"
        for k in e["kernels"]
    )


def _agreement_line(e: Mapping[str, Any]) -> str:
    if e["worst"] is None:
        return f"FAILED, {_short(e['error'])}"
    return f"{e['worst']:.2f} of what is allowed{'' if e['ok'] else ', NOT WITHIN THE RULE'}"


_LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "agreement": _agreement_line,
    "sanitized": lambda e: ("clean" if e["ok"] else "NOT CLEAN") + f", {e['text']}",
    "compiled": _compiled_line,
    "prepared": lambda e: ", ".join(f"{n} {t}" for n, t in e["seconds_of"].items()),
    "tuned": lambda e: f"{_ms(e['default_ms'])} to {_ms(e['chosen_ms'])} with {e['chosen']}",
    "measured": _measured_line,
    "note": lambda e: str(e["text"]),
    "failed": lambda e: f"{e['of']} FAILED, {_short(e['error'])}",
}
