"""The table of the GPU suite: a line an entry, and the page."""

from __future__ import annotations

from dataclasses import asdict

from attngen.bench.gpu.catalogue import Agreement
from attngen.bench.gpu.measure import Judged, Measured
from attngen.bench.gpu.report import Report, StepReport
from attngen.bench.gpu.table import line, markdown
from attngen.bench.gpu.tasks import Compiled, KernelFigures, Tuned

MEASURED = Measured(
    "window 1024, 32k",
    "G4",
    (1, 64, 8, 32768, 32768, 128),
    pairs=10,
    ms={"attngen": 3.0, "flex": 4.5},
    tflops={"attngen": 361.0, "flex": 241.0},
    ratio={"flex": 1.5},
    host_us={"attngen": 60.0, "flex": 80.0},
    planning_ms={"attngen": 0.2, "flex": 9.0},
    error=0.3,
    absent={"natten": "NATTEN is not installed"},
    superset={"flex": "the triangle"},
    judged=Judged("TF/s", 361.0, 330, 450, "pass"),
)
SMALLER = Measured(
    "full 16k",
    "G1",
    ms={"attngen": 3.0},
    judged=Judged("TF/s", 1.0, 450, None, "", "a smaller case"),
    shrunk=("batch 4 to 2",),
    note="a | note",
)
ENTRIES = (
    {"kind": "measured", **MEASURED.as_json()},
    {"kind": "measured", **SMALLER.as_json()},
    {
        "kind": "agreement",
        "name": "causal bf16",
        **asdict(Agreement("causal", "bf16", 0.25, "O")),
        "ok": True,
    },
    {"kind": "agreement", "name": "gat fp32", **asdict(Agreement("gat", "fp32", 2.5, "O")), "ok": False},
    {
        "kind": "agreement",
        "name": "gat bf16",
        **asdict(Agreement("gat", "bf16", None, error="LaunchError: no")),
        "ok": False,
    },
    {
        "kind": "compiled",
        "goal": "G4",
        **asdict(
            Compiled("w", "bf16", (KernelFigures(0, 203, 8, 131072, 128, 64, 8, 3),), 1234567, "ranges")
        ),
    },
    {"kind": "compiled", **asdict(Compiled("abc", "bf16"))},
    {"kind": "compiled", **asdict(Compiled("odd", "bf16", refused="powers of two"))},
    {"kind": "tuned", **asdict(Tuned("w", "128x64", 3.0, 2.5))},
    {"kind": "prepared", "name": "w", "seconds_of": {"attngen": 2.1, "flex": "out"}},
    {"kind": "sanitized", "name": "causal bf16", "ok": True, "text": "0 errors"},
    {"kind": "note", "name": "sanitizer", "text": "not installed"},
    {"kind": "failed", "of": "measured", "name": "x", "error": "out of time", "seconds": 0.0},
)


def test_a_line_for_every_kind_of_entry():
    lines = [line(e) for e in ENTRIES]
    assert lines[0] == (
        "window 1024, 32k: attngen 3 ms (361 TFLOP/s), flex 4.5 ms (241 TFLOP/s); G4: 361 TF/s, pass"
    )
    assert lines[1].endswith("not judged, a smaller case")
    assert lines[3] == "gat fp32: 2.50 of what is allowed, NOT WITHIN THE RULE"
    assert lines[4] == "gat bf16: FAILED, LaunchError: no"
    assert lines[5] == "w: 203 registers, 8 B spilled, 131072 B shared"
    assert lines[6] == "abc: no kernel: products of matrices alone"
    assert lines[8] == "w: 3 ms to 2.5 ms with 128x64"
    assert lines[12] == "x: measured FAILED, out of time"
    assert all("\n" not in text for text in lines)


def test_the_page_puts_figures_beside_what_is_asked():
    page = markdown(
        Report(
            {"gpu": "A GPU"},
            {"times": "medians"},
            "complete",
            12.0,
            (StepReport("goals", "done", 9, ENTRIES),),
        )
    )
    assert "| G4 | window 1024, 32k | 361 TF/s | ≥ 330 | 450 | **pass** |  |" in page
    assert (
        "| G1 | full 16k | 1 TF/s | ≥ 450 |  | not judged: a smaller case | batch 4 to 2; a \\| note |"
        in page
    )
    assert page.index("| G1 |") < page.index("| G4 |")
    assert "| window 1024, 32k | attngen | 3 | 361 |  | 60 | 0.2 | 0.3 |" in page
    assert "|  | flex (the triangle) | 4.5 | 241 | 1.50 | 80 | 9 |  |" in page
    assert "natten: NATTEN is not installed" in page
    assert "1 of 3 calls are within the rule" in page
    assert "| gat | **LaunchError: no** | **2.50** |" in page
    assert "| G4 | w | bf16 | 1,234,567 | 128x64, 8 warps, 3 stages | 203 | 8 | 131072 | ranges |" in page
    for title in ("Steps", "Goals", "Times", "Compiled", "Correctness", "Tuning", "Notes", "Failures"):
        assert f"## {title}\n" in page
    widths = {
        block.count("|") for block in page.split("## Goals")[1].split("##")[0].splitlines() if "|" in block
    }
    assert len(widths) == 2  # one cell holds an escaped bar


def test_a_report_without_entries_is_a_page_too():
    page = markdown(Report({}, {}))
    assert page.startswith("# attngen on a GPU\n")
    assert "## Goals" not in page


def test_failures_are_counted():
    report = Report({}, {}, steps=(StepReport("a", "failed"), StepReport("goals", "done", 9, ENTRIES)))
    assert report.failures() == 1 + 1 + 2
