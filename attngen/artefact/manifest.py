"""The manifest of an artefact: what it holds, how each kernel is called, and the hash of every file.

`manifest.schema.json` says the same for other languages. Nothing in it is believed: names are identifiers, paths stay
below the artefact, numbers are within bounds, and a reader refuses what it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any, Literal, cast, get_args

from attngen.artefact.document import ARGUMENT, IDENTIFIER, PATH, SHA256, WORD, Doc, parse
from attngen.artefact.special import special_from_json, special_to_json
from attngen.emit.configs import Config, config_from_json, config_to_json
from attngen.emit.cpp_names import ArgLayout, layout_from_json
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.spec import Target
from attngen.emit.target import CPU_ARCHS, CUDA_ARCHS, HIP_ARCHS
from attngen.emit.triton.names import Alignment, Arg, Role
from attngen.errors import ArtefactError
from attngen.lang.program import INPUT_RANKS
from attngen.pipeline import Specialisation
from attngen.store.entry import FileRecord, own_hash
from attngen.store.key import plain
from attngen.value import value

FORMAT = 1
MANIFEST = "manifest.json"
DOCUMENTS = "documents.json"

Form = Literal["one_pass", "local_then_merge", "scan", "reassociated"]
FORMS: tuple[str, ...] = get_args(Form)
ALIGNMENTS: tuple[str, ...] = get_args(Alignment)
_KINDS: dict[str, tuple[str, ...]] = {"cuda": CUDA_ARCHS, "hip": HIP_ARCHS, "cpu": CPU_ARCHS}
_ROLES: tuple[str, ...] = get_args(Role)
_MOST_BYTES = 1 << 30
_MOST_AXES = 16
_LARGEST_FIELD = 1 << 20  # of a configuration
# What a captured tensor may hold.
BOUND_DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip


@value
class Launch:
    """How a kernel is started. Formulas are C expressions over extents, parameters and `ceil_div`.

    tiles    query tiles of one head (of one key head, where heads are packed); `key_tiles` those of its keys.
    programs thread blocks of a launch, or tasks that the threads of a CPU share.
    threads  of a thread block; 0 on a CPU.
    shared   bytes of shared memory a thread block takes.
    scratch  bytes of device memory a thread block takes.
    """

    tiles: str = ""
    key_tiles: str = ""
    programs: str = ""
    threads: int = 0
    shared: int = 0
    scratch: int = 0


@value
class Kernel:
    """One built kernel.

    name       of its folder, unique in the artefact: `sm_90/bf16-d128/causal`.
    program    the identity of what it computes: see `identity`.
    form       the way of computing it that this kernel is part of; `step` counts the kernels of one way.
    rows       whose rows its fold keeps: "q", "k", "pair".
    needs      instruction sets of a CPU beyond those of its architecture's base, as Linux calls them.
    special    what its text is specialised on.
    packed     rows of a packed tile: it serves calls whose `few_rows` are as many; 0 serves any call.
    alignment  what of a call's addresses and strides it counts on: `aligned` and `ones` say it by argument.
    aligned    pointers that are multiples of 16 bytes, and strides that are multiples of 16 elements.
    ones       strides that are 1, and are not passed.
    args       of a GPU kernel, in order, `ones` included.
    layout     of a CPU kernel.
    divisors   parameters that a call may only give as 1 or more.
    resources  what the compiler says of it: registers, spilled bytes, ...
    files      by role: "source", "binary", "assembly".
    """

    name: str
    program: str
    form: Form
    step: int
    rows: str
    target: Target
    special: Specialisation
    config: Config = CpuConfig(1, 1)
    entry: str = ""
    launch: Launch = Launch()
    args: tuple[Arg, ...] = ()
    layout: ArgLayout | None = None
    needs: tuple[str, ...] = ()
    packed: int = 0
    alignment: Alignment = "none"
    aligned: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    divisors: tuple[str, ...] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@value
class Bound:
    """A captured tensor that the specification is bound to: its bytes lie in a file, contiguous, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    file: str


@value
class Manifest:
    """What an artefact is.

    name        of the program; `title` is its documentation's first line.
    program     the linked program as JSON (see `lang.serialize`); `text` is its canonical text.
    outputs     what a call returns, in order.
    values      numbers that parameters are bound to; `tensors` are the captured tensors that are bound.
    forms       the ways of computing it whose kernels are all here.
    derivation  how it was derived, for people; `schedule` which tiles are visited, for people.
    versions    of what built it: "attngen", "sources", "triton", "compiler".
    """

    name: str
    title: str
    text: str
    program: Mapping[str, Any]
    outputs: tuple[str, ...]
    values: Mapping[str, int | float | bool]
    tensors: Mapping[str, Bound]
    forms: tuple[Form, ...]
    derivation: str
    schedule: str
    versions: Mapping[str, str]
    kernels: tuple[Kernel, ...]
    files: tuple[FileRecord, ...]

    def file(self, name: str) -> FileRecord:
        """The record of a file. Raises ArtefactError for one that the manifest does not name."""
        for record in self.files:
            if record.name == name:
                return record
        raise ArtefactError(f"the manifest of {self.name} does not name the file {name!r}")


def identity(text: str, outputs: tuple[str, ...]) -> str:
    """What a kernel computes: the hash of its program's canonical text and of the outputs it leaves."""
    return hashlib.sha256(json.dumps([text, list(outputs)]).encode()).hexdigest()


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """The manifest as JSON text: equal manifests give equal bytes."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": manifest.name,
        "title": manifest.title,
        "text": manifest.text,
        "program": manifest.program,
        "outputs": list(manifest.outputs),
        "values": {n: plain(v) for n, v in manifest.values.items()},
        "tensors": {n: asdict(b) for n, b in manifest.tensors.items()},
        "forms": list(manifest.forms),
        "derivation": manifest.derivation,
        "schedule": manifest.schedule,
        "versions": dict(manifest.versions),
        "kernels": [kernel_to_json(k) for k in manifest.kernels],
        "files": {f.name: {"bytes": f.nbytes, "sha256": f.sha256} for f in manifest.files},
    }
    document["sha256"] = own_hash(document)
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def manifest_from_bytes(data: bytes) -> Manifest:
    """The manifest that `manifest_to_bytes` wrote. Raises ArtefactError for anything else, and says where."""
    doc = parse(data, MANIFEST)
    found = doc.field("format")
    if type(found.of) is not int or found.of != FORMAT:
        raise ArtefactError(
            f"{MANIFEST} has format {found.of!r}, this attngen reads {FORMAT}",
            hint="build it with this version of attngen, or install the version that built it",
        )
    doc.only(
        "format", "name", "title", "text", "program", "outputs", "values", "tensors", "forms", "derivation",
        "schedule", "versions", "kernels", "files", "sha256",
    )  # fmt: skip
    if doc.field("sha256").text(SHA256) != own_hash(doc.object()):
        raise ArtefactError(f"{MANIFEST} has changed since it was written")
    files = tuple(
        FileRecord(
            Doc(name, entry.where).text(PATH, 400),
            entry.only("bytes", "sha256").field("bytes").integer(0, _MOST_BYTES),
            entry.field("sha256").text(SHA256),
        )
        for name, entry in doc.field("files").members()
    )
    known = {f.name for f in files}
    kernels = doc.field("kernels").tuple(lambda k: kernel_from_json(k, known))
    if len({k.name for k in kernels}) != len(kernels):
        raise ArtefactError(f"{MANIFEST}: two kernels have one name")
    return Manifest(
        name=doc.field("name").text(IDENTIFIER),
        title=doc.field("title").text(),
        text=doc.field("text").text(),
        program=doc.field("program").object(),
        outputs=doc.field("outputs").tuple(lambda n: n.text(IDENTIFIER)),
        values={Doc(n, v.where).text(IDENTIFIER): v.number() for n, v in doc.field("values").members()},
        tensors={
            Doc(n, b.where).text(IDENTIFIER): _bound(b, known) for n, b in doc.field("tensors").members()
        },
        forms=doc.field("forms").tuple(_form),
        derivation=doc.field("derivation").text(),
        schedule=doc.field("schedule").text(),
        versions={Doc(n, v.where).text(WORD): v.text(most=400) for n, v in doc.field("versions").members()},
        kernels=kernels,
        files=files,
    )


def _form(doc: Doc) -> Form:
    return cast("Form", doc.one_of(*FORMS))


def _bound(doc: Doc, known: set[str]) -> Bound:
    doc.only("dtype", "shape", "file")
    shape = doc.field("shape").tuple(lambda n: n.integer(0, 2**31 - 1))
    if len(shape) > _MOST_AXES:
        raise doc.field("shape").refuse(f"at most {_MOST_AXES} extents")
    return Bound(doc.field("dtype").one_of(*BOUND_DTYPES), shape, _file(doc.field("file"), known))


def _file(doc: Doc, known: set[str]) -> str:
    name = doc.text(PATH, 400)
    if name not in known:
        raise doc.refuse("a file that the manifest names")
    return name


def kernel_to_json(kernel: Kernel) -> dict[str, Any]:
    """A kernel as a JSON object."""
    return {
        "name": kernel.name,
        "program": kernel.program,
        "form": kernel.form,
        "step": kernel.step,
        "rows": kernel.rows,
        "target": {"kind": kernel.target.kind, "arch": kernel.target.arch},
        "needs": list(kernel.needs),
        "special": special_to_json(kernel.special),
        "config": config_to_json(kernel.config),
        "entry": kernel.entry,
        "packed": kernel.packed,
        "alignment": kernel.alignment,
        "aligned": list(kernel.aligned),
        "ones": list(kernel.ones),
        "launch": asdict(kernel.launch),
        "args": [
            {"name": a.name, "role": a.role, "of": a.of, "axis": a.axis, "last": a.last, "dtype": a.dtype}
            for a in kernel.args
        ],
        "layout": None if kernel.layout is None else asdict(kernel.layout),
        "divisors": list(kernel.divisors),
        "resources": dict(kernel.resources),
        "files": dict(kernel.files),
    }


def kernel_from_json(doc: Doc, known: set[str]) -> Kernel:
    """The kernel that `kernel_to_json` wrote, whose files are among `known`. Raises ArtefactError."""
    doc.only(
        "name", "program", "form", "step", "rows", "target", "needs", "special", "config", "entry", "packed",
        "alignment", "aligned", "ones", "launch", "args", "layout", "divisors", "resources", "files",
    )  # fmt: skip
    target = doc.field("target").only("kind", "arch")
    kind = cast("Literal['cuda', 'hip', 'cpu']", target.field("kind").one_of(*_KINDS))
    arch = target.field("arch").one_of(*_KINDS[kind])
    files = {Doc(n, f.where).text(WORD): _file(f, known) for n, f in doc.field("files").members()}
    if "binary" not in files:
        raise doc.field("files").refuse("a binary")
    layout = doc.optional("layout")
    if (layout is None) == (kind == "cpu"):
        raise doc.refuse("a layout for a CPU, arguments for a GPU")
    return Kernel(
        name=doc.field("name").text(PATH, 300),
        program=doc.field("program").text(SHA256),
        form=_form(doc.field("form")),
        step=doc.field("step").integer(0, 1000),
        rows=doc.field("rows").one_of("q", "k", "pair"),
        target=Target(kind, arch),
        needs=doc.field("needs").tuple(lambda n: n.text(WORD)),
        special=special_from_json(doc.field("special")),
        config=_config(doc.field("config"), kind),
        entry=doc.field("entry").text(IDENTIFIER),
        packed=doc.field("packed").integer(0, 1 << 16),
        alignment=cast("Alignment", doc.field("alignment").one_of(*ALIGNMENTS)),
        aligned=doc.field("aligned").tuple(lambda n: n.text(IDENTIFIER)),
        ones=doc.field("ones").tuple(lambda n: n.text(IDENTIFIER)),
        launch=_launch(doc.field("launch")),
        args=doc.field("args").tuple(_arg),
        layout=None if layout is None else _layout(layout),
        divisors=doc.field("divisors").tuple(lambda n: n.text(IDENTIFIER)),
        resources={Doc(n, r.where).text(WORD): r.integer() for n, r in doc.field("resources").members()},
        files=files,
    )


def _config(doc: Doc, kind: str) -> Config:
    config = config_from_json("cpu" if kind == "cpu" else "triton", doc.object())
    if config is None or max(int(x) for x in asdict(config).values()) > _LARGEST_FIELD:
        raise doc.refuse("a configuration of this version")
    if min(config.block_q, config.block_k) < 1:
        raise doc.refuse("tiles of at least one query and one key")
    return config


def _launch(doc: Doc) -> Launch:
    doc.only("tiles", "key_tiles", "programs", "threads", "shared", "scratch")
    return Launch(
        doc.field("tiles").text(most=4000),
        doc.field("key_tiles").text(most=4000),
        doc.field("programs").text(most=4000),
        doc.field("threads").integer(0, 4096),
        doc.field("shared").integer(0, 1 << 24),
        doc.field("scratch").integer(0, 1 << 24),
    )


def _arg(doc: Doc) -> Arg:
    doc.only("name", "role", "of", "axis", "last", "dtype")
    return Arg(
        doc.field("name").text(IDENTIFIER),
        cast("Role", doc.field("role").one_of(*_ROLES)),
        doc.field("of").text(IDENTIFIER),
        doc.field("axis").integer(0, 16),
        doc.field("last").boolean(),
        doc.field("dtype").text(most=20),
    )


def _layout(doc: Doc) -> ArgLayout:
    """A CPU kernel's layout: lists of names and of `[name, rank]`."""
    names = ("inputs", "pointers", "ints", "floats", "int_params", "float_params")
    ranked = ("outputs", "tensors")
    doc.only(*names, *ranked, "lists", "order", "max_keys")
    for name in names:
        doc.field(name).tuple(lambda n: n.text(ARGUMENT))
    doc.field("inputs").tuple(lambda n: n.one_of(*INPUT_RANKS))
    for name in ranked:
        for pair in doc.field(name).items():
            parts = list(pair.items())
            if len(parts) != 2:
                raise pair.refuse("a name and a rank")
            parts[0].text(IDENTIFIER)
            parts[1].integer(0, 16)
    for name in ("lists", "order"):
        doc.field(name).boolean()
    doc.field("max_keys").integer(0, 2**31)
    return layout_from_json(doc.object())
