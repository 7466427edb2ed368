"""The workloads of the suite as data: a mask, extents, the peers that are asked, and what is to be reached.

`GOALS` are G1 to G18 of the project: the figures that one H200 should show, in bf16 with 128 features, times with the
second-level cache overwritten. "must" is what a release needs, "stretch" what further work on kernels may bring.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from attngen.bench.gpu.masks import Documents, Extents, Full, Mask, Window
from attngen.bench.gpu.masks_grid import Dilated, Near, Stripes, Swin
from attngen.bench.gpu.masks_tables import Blocks, Selected, Slashes

PEERS = ("flex", "sdpa_flash", "sdpa_cudnn", "flash_attn", "natten")
_TENSORS = ("flex", "sdpa_flash", "sdpa_cudnn", "flash_attn")
_GRIDS = ("flex", "sdpa_cudnn", "natten")

# What a figure counts, and whether more of it is better.
UNITS = {"TF/s": True, "ms": False, "us": False, "s": False, "x": True, "% of bandwidth": True}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held to; None where nothing is asked."""

    unit: str
    must: float
    stretch: float | None = None

    def verdict(self, value: float) -> str:
        """Which bar a value reaches: "stretch", "pass" or "fail"."""
        more = UNITS[self.unit]

        def reached(bar: float) -> bool:
            return value >= bar if more else value <= bar

        if self.stretch is not None and reached(self.stretch):
            return "stretch"
        return "pass" if reached(self.must) else "fail"


@dataclass(frozen=True, slots=True)
class Case:
    """One workload of one kernel call, in bf16.

    goal    of the list, "" for a workload beside it.
    n       keys; queries too unless `n_q` says otherwise.
    bar     what is asked; for "x", how many times faster than `over`.
    tune    whether the tuner is asked first.
    note    what a reader has to know.
    shrunk  how the case was made smaller than its goal, "" if it was not; a smaller case is not judged.
    """

    name: str
    goal: str
    mask: Mask
    batch: int
    heads: int
    kv_heads: int
    n: int
    n_q: int | None = None
    head_dim: int = 128
    bar: Bar | None = None
    over: str = ""
    peers: tuple[str, ...] = _TENSORS
    tune: bool = False
    note: str = ""
    shrunk: tuple[str, ...] = field(default=())

    @property
    def extents(self) -> Extents:
        """Heads and tokens."""
        return Extents(self.heads, self.kv_heads, self.n if self.n_q is None else self.n_q, self.n)

    def flop(self, pairs: int) -> int:
        """Operations of the two products over `pairs` kept pairs: what the mask drops earns nothing."""
        return 4 * self.head_dim * pairs

    def touched_bytes(self, pairs: int) -> int:
        """Bytes of keys and values that a call of one query a head has to read, `pairs` over all heads."""
        return pairs * self.kv_heads // self.heads * self.head_dim * 2 * 2

    def smaller(self) -> Case | None:
        """The case with half the batch, or half the heads; None if neither can be halved."""
        if self.batch > 1:
            half = self.batch // 2
            return replace(self, batch=half, shrunk=(*self.shrunk, f"batch {self.batch} to {half}"))
        if self.kv_heads > 1:
            kv, heads = self.kv_heads // 2, self.heads // self.kv_heads * (self.kv_heads // 2)
            return replace(
                self, heads=heads, kv_heads=kv, shrunk=(*self.shrunk, f"heads {self.heads} to {heads}")
            )
        return None


@dataclass(frozen=True, slots=True)
class Special:
    """A goal that is no single call; `special.py` measures it under this name."""

    name: str
    goal: str
    bar: Bar
    note: str = ""


def _line(name: str, goal: str, mask: Mask, n: int, heads: tuple[int, int], bar: Bar, **more: object) -> Case:
    return replace(Case(name, goal, mask, 1, *heads, n, bar=bar), **more)


_GQA = (64, 8)
_K32, _K128 = 1 << 15, 1 << 17
_FLUX, _HUNYUAN = (256, 256), (30, 48, 80)
_WIDE_2D, _WIDE_3D = (80, 80), (18, 24, 24)


def _near(name: str, goal: str, mask: Near, heads: int, bar: Bar, **more: object) -> Case:
    n = 1
    for extent in mask.grid:
        n *= extent
    return _line(name, goal, mask, n, (heads, heads), bar, peers=_GRIDS, **more)


GOALS: tuple[Case | Special, ...] = (
    _line("causal 32k", "G2", Window(), _K32, _GQA, Bar("TF/s", 400, 520), tune=True),
    _line("causal 4k", "G2", Window(), 4096, _GQA, Bar("TF/s", 335)),
    _line("window 1024, 32k", "G4", Window(1024), _K32, _GQA, Bar("TF/s", 330, 450), tune=True),
    _line("full 16k", "G1", Full(), 1 << 14, (32, 32), Bar("TF/s", 450, 550), batch=4, tune=True),
    _line("documents of 2k, 32k", "G5", Documents(2048), _K32, _GQA, Bar("TF/s", 320, 450), tune=True),
    _near("FLUX 256x256, window 80x80", "G7", Near(_FLUX, _WIDE_2D, (1, 1)), 24, Bar("ms", 19, 14), tune=True),
    _near(
        "Hunyuan 30x48x80, window 18x24x24", "G9", Near(_HUNYUAN, _WIDE_3D, (1, 1, 1)), 24, Bar("ms", 70, 55),
        tune=True,
    ),
    _near("FLUX, stride 16x16", "G8", Near(_FLUX, _WIDE_2D, (16, 16)), 24, Bar("ms", 14, 10.6)),
    _near("Hunyuan, stride 16x8x8", "G10", Near(_HUNYUAN, _WIDE_3D, (16, 8, 8)), 24, Bar("ms", 40, 29)),
    _near("line of 32k, window 2048", "G6", Near((_K32,), (2048,), (1,)), 1, Bar("us", 105, 94.8)),
    _near("line of 32k, stride 256", "G6", Near((_K32,), (2048,), (256,)), 1, Bar("us", 90, 62.7)),
    _near("line of 32k, stride 2048", "G6", Near((_K32,), (2048,), (2048,)), 1, Bar("us", 85, 59.3)),
    *(
        _line(
            f"blocks of 128, {density:.0%}", "G11", Blocks(128, density), _K32, (32, 32),
            Bar("TF/s", must, stretch), peers=("flex",), tune=density == 0.25,
        )
        for density, must, stretch in ((0.5, 380, 480), (0.25, 370, 480), (0.1, 350, None), (0.05, 300, None))
    ),
    _line("blocks of 64, 25%", "G12", Blocks(64, 0.25), _K32, (32, 32), Bar("TF/s", 270, 320), peers=("flex",)),
    Case(
        "decode, window 4096 and sink 64", "G15", Window(4096, 64), 64, *_GQA, _K32, n_q=1,
        bar=Bar("% of bandwidth", 75, 85), peers=("flex", "sdpa_flash"),
        note="64 sequences of 32k keys; bytes of the keys and values that the mask keeps",
    ),
    Special(
        "planning at 1M tokens", "G16", Bar("ms", 5), "the slowest declared mask of `attngen bench planning`, new"
    ),
    Special("planning again at 1M tokens", "G16", Bar("ms", 0.2, 0.2), "the same specification again"),
    Special("lists of a map of 512x512 blocks, 64 heads", "G17", Bar("ms", 0.15), "on the device, with no wait"),
    Special("first output of a new process, built", "G18", Bar("s", 5), "after PyTorch is imported and has its device"),
    Special("first output of a new process, from the cache", "G18", Bar("s", 0.3), "the same, a second time"),
    _line(
        "vertical lines and slashes, 128k", "G14", Slashes(1000, 6096), _K128, (4, 4), Bar("x", 3, 5),
        over="sdpa_flash", peers=("flex", "sdpa_flash"),
        note="lines and slashes lie anywhere and touch nearly every tile; forward programs gather no keys",
    ),
    Case(
        "16 blocks of 64 for each query, 8k", "G13", Selected(16, 64), 1, 64, 4, 8192, peers=("flex",),
        note="the goal is at 64k; as a mask, a tile of queries visits what any of them sees, and forward programs "
        "gather no keys",
    ),
)  # fmt: skip

# Workloads beside the goals that earlier figures exist for.
MORE: tuple[Case, ...] = (
    Case("causal 4k, batch 4", "", Window(), 4, 32, 32, 4096),
    Case("window 1024 and sink 64, 32k", "", Window(1024, 64), 1, 16, 2, _K32),
    Case("documents by offsets, 32k", "", Documents(2048, offsets=True), 1, 16, 2, _K32),
    Case(
        "shifted windows of 7, 224x224", "", Swin(224, 7, 3), 1, 12, 12, 224 * 224, head_dim=64, peers=(),
        note="with its bias",
    ),
    Case("stripes, 32k", "", Stripes(16, 16), 1, 32, 32, _K32, peers=("flex",)),
    Case("dilated by 8, window 256, 32k", "", Dilated(256, 8), 1, 16, 16, _K32, peers=("flex",)),
)  # fmt: skip


def chosen_goals(only: tuple[str, ...]) -> tuple[Case | Special, ...]:
    """The workloads of the goals named, in the order of the suite; all where none is."""
    return tuple(c for c in GOALS if not only or c.goal in only)


def goal_names() -> tuple[str, ...]:
    """The goals that have a workload, in the order of their numbers."""
    return tuple(sorted({c.goal for c in GOALS}, key=lambda g: int(g[1:])))
