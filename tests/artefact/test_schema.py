"""`manifest.schema.json` says what the reader of manifests does: both take the real ones and refuse the same others."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from attngen.artefact import manifest
from attngen.artefact.manifest import ALIGNMENTS, BOUND_DTYPES, FORMS, manifest_from_bytes
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.target import CPU_ARCHS, CUDA_ARCHS, HIP_ARCHS
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.names import Role
from attngen.errors import ArtefactError
from tests.artefact.rewrite import sealed

SCHEMA = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
# What a reader checks beyond the schema, as the schema says of itself.
BEYOND = (
    "a file that the manifest names",
    "two kernels have one name",
    "nests more",
    "surrogate",
    "has changed since",
)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 17, 2**31, 2**62, 2**64, 0.5, "", "x", "a b", "../a", "a/b", "a\n", "0" * 64, "cpu",
    "sm_90", [], {}, ["x"], [1], {"x": 1}, {"float": "0x1.8000000000000p+0"}, {"float": "1.5"}, "Q", "q", "λ",
    "x" * 500,
)  # fmt: skip


def manifests(small: Path) -> list[dict[str, Any]]:
    """Real ones, and one with a kernel for GPUs and what the real ones lack."""
    found = [
        json.loads((small / name / "manifest.json").read_bytes())
        for name in ("causal", "sliding_window_sink")
    ]
    full = copy.deepcopy(found[0])
    config = TritonConfig(64, 32, 4, 2)
    (kernel,) = full["kernels"]
    kernel |= {
        "name": "sm_90/bf16-d16/one_pass-0",
        "target": {"kind": "cuda", "arch": "sm_90"},
        "config": {f.name: getattr(config, f.name) for f in fields(config)},
        "layout": None,
        "needs": [],
        "args": [{"name": "q_ptr", "role": "pointer", "of": "Q", "axis": 0, "last": False, "dtype": "bfloat16"}],
        "aligned": ["q_ptr"],
        "ones": ["q_s3"],
        "divisors": ["window"],
        "resources": {"registers": 128},
    }  # fmt: skip
    kernel["special"] |= {
        "tensors": [["doc", "int32", 1]],
        "consts": [["n", 3], ["x", {"float": "0x1.8000000000000p+0"}], ["flag", True]],
        "boxes": {"shapes": [["y", 4, 8, 0], ["x", 4, 8, 0]], "cut": True, "tight": False},
        "extents": [["j", 16]],
        "exact": ["O"],
    }
    full["values"] = {"window": 3, "soft": {"float": "inf"}}
    full["tensors"] = {"doc": {"dtype": "int32", "shape": [7], "file": next(iter(full["files"]))}}
    return [*found, full]


def read(document: dict[str, Any]) -> str | None:
    """Why the reader refuses a document, if it does."""
    try:
        manifest_from_bytes(sealed(document))
    except ArtefactError as error:
        return error.message
    return None


def resealed(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sealed(document))
    return found


def places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    level = [document]
    while level:
        at = level.pop()
        for key in list(at) if isinstance(at, dict) else range(len(at)):
            found.append((at, key))
            if isinstance(at[key], dict | list) and key != "program":
                level.append(at[key])
    return found


def test_real_manifests_are_valid(small: Path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for document in manifests(small):
        assert read(document) is None
        VALIDATOR.validate(resealed(document))


def test_what_may_be_named_is_the_same():
    defs = SCHEMA["$defs"]
    assert defs["form"]["enum"] == list(FORMS)
    assert defs["kernel"]["properties"]["alignment"]["enum"] == list(ALIGNMENTS)
    assert defs["bound"]["properties"]["dtype"]["enum"] == list(BOUND_DTYPES)
    assert defs["arg"]["properties"]["role"]["enum"] == list(get_args(Role))
    archs = [
        rule["then"]["properties"]["target"]["properties"]["arch"]["enum"] for rule in defs["kernel"]["allOf"]
    ]
    assert archs == [list(CUDA_ARCHS), list(HIP_ARCHS), list(CPU_ARCHS)]
    for name, config in (("cpu_config", CpuConfig), ("triton_config", TritonConfig)):
        assert set(defs[name]["properties"]) == {f.name for f in fields(config)}


@pytest.mark.parametrize("which", range(3))
def test_both_refuse_the_same(small: Path, which: int):
    """Every place of a manifest, with each of a few values in it, without it, and with one more."""
    base = manifests(small)[which]
    rng = random.Random(which)
    counts = {True: 0, False: 0}
    for index in range(len(places(base))):
        for value in [*rng.sample(VALUES, 6), "dropped", "renamed", "more"]:
            document = copy.deepcopy(base)
            at, key = places(document)[index]
            match value:
                case "dropped":
                    del at[key]
                case "renamed":
                    if isinstance(at, dict):
                        at[rng.choice(("x", "a b", "", "../a"))] = at.pop(key)
                case "more":
                    if isinstance(at, list):
                        at.append(copy.deepcopy(at[key]))
                case _:
                    at[key] = value
            if key == "sha256" and at is document:
                continue
            message = read(document)
            if message is not None and any(part in message for part in BEYOND):
                continue
            is_valid = VALIDATOR.is_valid(resealed(document))
            assert is_valid == (message is None), f"{key} = {value!r}: {message}"
            counts[is_valid] += 1
    assert min(counts.values()) > 50
