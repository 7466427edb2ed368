"""Whom an artefact is loaded from: what others could have written is refused, with the reason and the cure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import attngen
from attngen.artefact.read import check_all, open_artefact
from attngen.errors import ArtefactError
from attngen.store import trust

KERNEL = "cpu/fp32-d16/one_pass-0"
PLACES = ("..", ".", "manifest.json", "documents.json", "cpu", KERNEL, f"{KERNEL}/kernel.so")


@pytest.fixture
def artefact(small: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small / "causal", tmp_path / "mine" / "causal")


@pytest.mark.parametrize("bits", [0o020, 0o002], ids=["group", "others"])
@pytest.mark.parametrize("place", PLACES)
def test_what_others_can_write_is_refused(artefact: Path, place: str, bits: int):
    path = (artefact / place).resolve()
    check_all(artefact)
    path.chmod(path.stat().st_mode | bits)
    with pytest.raises(ArtefactError, match="others can write to it") as caught:
        check_all(artefact)
    assert str(path) in caught.value.message
    assert f"`chmod go-w {path}`" in (caught.value.hint or "")
    path.chmod(path.stat().st_mode & ~0o022)
    check_all(artefact)


def test_a_directory_where_only_owners_rename_may_hold_artefacts(artefact: Path):
    artefact.parent.chmod(0o1777)
    check_all(artefact)
    artefact.chmod(0o1777)  # of its own files the sticky bit protects none: others could add some
    with pytest.raises(ArtefactError, match="others can write to it"):
        open_artefact(artefact)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
@pytest.mark.parametrize("place", PLACES)
def test_what_belongs_to_another_user_is_refused(artefact: Path, place: str):
    os.chown(artefact / place, 1234, 1234)
    with pytest.raises(ArtefactError, match="belongs to another user"):
        check_all(artefact)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_the_owner_of_the_package_may_own_artefacts(artefact: Path, monkeypatch: pytest.MonkeyPatch):
    """An environment that several people share has one owner, who runs code as each of them anyway."""
    for path in (artefact.parent, artefact, *artefact.rglob("*")):
        os.chown(path, 1234, 1234)
    with pytest.raises(ArtefactError):
        check_all(artefact)
    own = Path(shutil.copy(trust.__file__, artefact.parent / "trust.py"))
    os.chown(own, 1234, 1234)
    monkeypatch.setattr(trust, "__file__", str(own))
    check_all(artefact)


@pytest.mark.parametrize("name", ["manifest.json", "documents.json", f"{KERNEL}/kernel.so"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing", "longer", "shorter", "flipped"])
def test_only_plain_files_with_their_bytes_are_read(artefact: Path, name: str, kind: str):
    path = artefact / name
    data = path.read_bytes()
    path.unlink()
    match kind:
        case "link":
            (artefact.parent / "elsewhere").write_bytes(data)
            path.symlink_to(artefact.parent / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "longer":
            path.write_bytes(data + b"\0")
        case "shorter":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
        case _:
            pass
    with pytest.raises(ArtefactError):
        check_all(artefact)


def test_a_folder_that_is_a_link_is_refused(artefact: Path):
    (artefact / "cpu").rename(artefact.parent / "cpu")
    (artefact / "cpu").symlink_to(artefact.parent / "cpu")
    with pytest.raises(ArtefactError, match="not a plain directory"):
        check_all(artefact)


def test_a_link_to_an_artefact_is_judged_by_what_it_leads_to(artefact: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(artefact)
    assert open_artefact(tmp_path / "link").directory == artefact
    artefact.chmod(0o777)
    with pytest.raises(ArtefactError, match="others can write to it"):
        attngen.load_artefact(tmp_path / "link")
