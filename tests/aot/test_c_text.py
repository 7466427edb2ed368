"""The texts of the C interface: what they say, and that nothing of a program or a manifest can break out of them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

import attngen
from attngen.aot.c_names import Names, comment, identifier, string
from attngen.aot.grid import launch_formulas
from attngen.aot.print_c import c_files
from attngen.artefact.manifest import Kernel, Launch, Manifest
from attngen.artefact.read import open_artefact
from attngen.emit.cpp_names import arg_layout
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.spec import Target
from attngen.emit.triton.assume import assume
from attngen.emit.triton.config import TritonConfig
from attngen.errors import InternalError
from attngen.lang.print import print_program
from attngen.lang.serialize import program_to_json
from attngen.pipeline import Specialisation
from tests.aot.c_calls import compiled

BACKENDS = Path(str(importlib.util.find_spec("triton").origin)).parent / "backends"  # type: ignore[union-attr]
DRIVERS = (
    *("-DATTNGEN_WITH_CUDA", "-isystem", str(BACKENDS / "nvidia/include")),
    *("-DATTNGEN_WITH_HIP", "-isystem", str(BACKENDS / "amd/include")),
)


def kernels_of(name: str) -> tuple[Kernel, ...]:
    """What a manifest says of kernels for a CPU and two GPUs, which nobody has compiled."""
    from attngen.absent_target import specs_for_target
    from attngen.analysed import analyse

    found: list[Kernel] = []
    for kind, arch in (("cpu", "cpu-avx2"), ("cuda", "sm_80"), ("hip", "gfx942")):
        spec = attngen.load(name, ("O", "LSE"))
        (made,), _ = specs_for_target(analyse(spec.program), spec.values, arch, "bf16", 64, 64)
        path = f"{arch}/bf16-d64/one_pass-0"
        config = CpuConfig(128, 96) if kind == "cpu" else TritonConfig(128, 64, 4, 3)
        tensors = tuple((t.name, t.torch_dtype, t.rank) for t in made.tensors)
        kernel = Kernel(
            name=path,
            program="0" * 64,
            form="one_pass",
            step=0,
            rows="q",
            target=Target(kind, arch),  # type: ignore[arg-type]
            special=Specialisation(
                "bfloat16", 64, 64, tensors, made.consts, boxes=made.boxes, extents=made.extents
            ),
            config=config,
            entry=f"attngen_{name}_{arch.replace('-', '_')}",
            launch=Launch(*launch_formulas(made, config)),
            divisors=made.positive,
            files={"binary": f"{path}/kernel.bin"},
        )
        if kind == "cpu":
            found.append(replace(kernel, layout=arg_layout(made), needs=("avx2", "fma")))
        else:
            known = assume(made, "features")
            launch = replace(kernel.launch, threads=128, shared=73728)
            found.append(
                replace(
                    kernel,
                    args=known.args,
                    aligned=known.aligned,
                    ones=known.ones,
                    alignment="features",
                    launch=launch,
                )
            )
    return tuple(found)


def manifest_of(name: str) -> Manifest:
    spec = attngen.load(name, ("O", "LSE"))
    return Manifest(
        name=name,
        title=next(iter(spec.program.doc.strip().splitlines())),
        text=print_program(spec.program, doc=False),
        program=program_to_json(spec.program),
        outputs=("O", "LSE"),
        values={},
        tensors={},
        forms=("one_pass",),
        derivation="",
        schedule="",
        versions={"attngen": "0.1"},
        kernels=kernels_of(name),
        files=(),
    )


@pytest.mark.parametrize("name", ["causal", "documents"])
def test_golden(golden, name):
    for file, text in c_files(manifest_of(name)).items():
        golden(f"aot/{file}", text)


@pytest.mark.parametrize("name", ["alibi", "swin", "dilated", "neighborhood_3d", "vitdet_roll", "prefix_lm"])
def test_the_catalogue_compiles_without_a_warning(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for file, text in c_files(manifest_of(name)).items():
        (folder / file).write_text(text)
    for flags in ((), DRIVERS):
        compiled(folder, tmp_path, "-Wshadow", *flags)


def test_no_kernels_no_interface():
    """A program that computes nothing from pairs runs without a kernel."""
    assert c_files(replace(manifest_of("causal"), kernels=())) == {}


def test_it_is_pure(built):
    manifest = open_artefact(built("causal", ("O", "LSE"))).manifest
    assert c_files(manifest) == c_files(replace(manifest, files=(), derivation="other"))


NASTY = '*/ int main(void) { return 1; } /* ??/\n#error "no"\\\n\u202e \x07 "quoted" %s '


def test_text_of_a_program_stays_in_its_comment(tmp_path):
    manifest = replace(manifest_of("causal"), title=NASTY, text=NASTY, versions={"attngen": NASTY})
    folder = tmp_path / "causal"
    folder.mkdir()
    for file, text in c_files(manifest).items():
        assert text.isascii()
        (folder / file).write_text(text)
    compiled(folder, tmp_path)


def test_names_of_a_program_are_no_words_of_c(tmp_path):
    program = tmp_path / "linux.attn"
    program.write_text(
        "register: int = 3\nstdin: int = 2\nn_qx: int = 1\nthreads: float = 1.0\nK_stride[h]: float\n"
        "for_[b, k]: int\n\n"
        "mask = (k <= pos(q)) & (k > register - stdin + n_qx) & (for_[b, k] > 0)\n"
        "score = S * threads + K_stride[h]\n"
    )
    path = attngen.load(str(program), ("O", "LSE")).compile("cpu", "fp32", 16, path=tmp_path / "out")
    header = (path / "linux.h").read_text()
    for field in ("int64_t register_;", "int64_t stdin_;", "double threads_;", "const float *K_stride_;"):
        assert field in header
    compiled(path, tmp_path)


def test_names():
    names = Names(("n_q",))
    assert names.field("Q", "_stride") == "Q"
    assert names.field("Q_stride") == "Q_stride_"
    assert names.field("n_q") == "n_q_"
    assert names.field("int") == "int_"
    assert names.field("__x__") == "x"
    assert names.field("int8_t") == "int8_t_"
    assert names.field("x") == "x_"
    assert names.field("x") == "x_x"
    for wrong in ("", "a b", "1x", "a;", "é", "a\n"):
        with pytest.raises(InternalError):
            identifier(wrong)


def test_strings_and_comments():
    assert string('a"b\\c?\n') == '"a\\"b\\\\c\\?\\012"'
    assert string("é") == '"\\303\\251"'
    assert comment("*/ /* **//") == "* / / * ** //"
    assert "*/" not in comment("*/*/ /*/ **/")
    assert "/*" not in comment("*/*/ /*/ **/")
    assert comment("a\\\nb??/\u202e") == "a\nb? ?/\\u202e"


@pytest.mark.parametrize("formula", ["system(1)", "n_q; n_k", "window + 1", 'n_q"', "n_q = 1", "c->ints[0]"])
def test_formulas_are_read(formula):
    manifest = manifest_of("causal")
    (first, *rest) = manifest.kernels
    bad = replace(first, launch=replace(first.launch, tiles=formula))
    with pytest.raises(InternalError):
        c_files(replace(manifest, kernels=(bad, *rest)))
