"""Wheels of artefacts: what is in them, that pip installs them, and that equal artefacts make equal wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from attngen.aot.write_wheel import write_wheel
from attngen.cli.main import main
from attngen.errors import ArtefactError, ParameterError


@pytest.fixture
def wheel(small: Path, tmp_path: Path) -> Path:
    return write_wheel([small], "mine", "1.0", tmp_path / "dist")


def pip_install(wheel: Path, *where: str | Path) -> None:
    command = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *where, wheel)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_the_record_is_of_every_file(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    assert archive.testzip() is None
    name = "attngen_artefacts_mine-1.0.dist-info/RECORD"
    rows = list(csv.reader(io.StringIO(archive.read(name).decode())))
    assert sorted(row[0] for row in rows) == sorted(archive.namelist())
    for path, sha, size in rows:
        if path == name:
            assert (sha, size) == ("", "")
            continue
        data = archive.read(path)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (sha, int(size)) == (f"sha256={digest}", len(data))


def test_it_holds_the_artefacts_as_they_are(wheel: Path, small: Path):
    archive = zipfile.ZipFile(wheel)
    for path in small.rglob("*"):
        if path.is_file():
            assert archive.read(f"attngen_artefacts_mine/{path.relative_to(small)}") == path.read_bytes()
    code = archive.read("attngen_artefacts_mine/__init__.py").decode()
    assert code == '"""Kernels that attngen built ahead of time: causal, sliding_window_sink."""\n'
    assert all(i.external_attr >> 16 == 0o100644 for i in archive.infolist())


def test_it_says_what_it_needs_and_where_it_runs(wheel: Path):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"attngen_artefacts_mine-1.0-py3-none-{platform}.whl"
    archive = zipfile.ZipFile(wheel)
    info = "attngen_artefacts_mine-1.0.dist-info"
    metadata = archive.read(f"{info}/METADATA").decode().splitlines()
    assert {"Name: attngen-artefacts-mine", "Version: 1.0", "Requires-Dist: attngen"} <= set(metadata)
    assert "Root-Is-Purelib: false" in archive.read(f"{info}/WHEEL").decode()
    points = archive.read(f"{info}/entry_points.txt").decode()
    assert points == "[attngen.artefacts]\nmine = attngen_artefacts_mine\n"


def test_equal_artefacts_make_equal_bytes(wheel: Path, small: Path, tmp_path: Path):
    copy = shutil.copytree(small, tmp_path / "copy")
    os.utime(copy / "causal" / "manifest.json", (1, 1))
    (copy / "causal" / "notes.txt").write_text("not the manifest's")
    again = write_wheel([copy / "sliding_window_sink", copy / "causal"], "mine", "1.0", tmp_path / "other")
    assert again.read_bytes() == wheel.read_bytes()


def test_pip_installs_it_and_takes_it_away(wheel: Path, tmp_path: Path, small: Path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python))
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    (package,) = (tmp_path / "venv").glob("lib/python3*/site-packages/attngen_artefacts_mine")
    for path in small.rglob("*"):
        if path.is_file():
            assert (package / path.relative_to(small)).read_bytes() == path.read_bytes()
    subprocess.run([*pip, "uninstall", "-q", "-y", "attngen-artefacts-mine"], check=True)
    assert not package.exists()


def test_a_damaged_artefact_is_not_packed(small: Path, tmp_path: Path):
    copy = shutil.copytree(small / "causal", tmp_path / "causal")
    kernel = next(copy.rglob("kernel.so"))
    kernel.write_bytes(kernel.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="has changed"):
        write_wheel([copy], "mine", "1.0", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_two_artefacts_of_one_name_are_refused(small: Path, tmp_path: Path):
    copy = shutil.copytree(small / "causal", tmp_path / "causal")
    with pytest.raises(ArtefactError, match="both called causal"):
        write_wheel([small, copy], "mine", "1.0", tmp_path)


@pytest.mark.parametrize(
    "name", ["", "Mine", "a-b", "a.b", "a__b", "_a", "a_", "1a", "a/b", "..", "a\n", "ä", "a" * 51]
)
def test_names_that_are_none(small: Path, tmp_path: Path, name: str):
    with pytest.raises(ParameterError, match="cannot name a package"):
        write_wheel([small], name, "1.0", tmp_path / "dist")


@pytest.mark.parametrize(
    "version", ["", "1.", ".1", "v1", "1.0-1", "1/0", "1.0\n", "01", "1.0+local", "1 0", "١", "1.2.3.4.5.6.7"]
)
def test_versions_that_are_none(small: Path, tmp_path: Path, version: str):
    with pytest.raises(ParameterError, match="is no version"):
        write_wheel([small], "mine", version, tmp_path / "dist")


@pytest.mark.parametrize("version", ["0", "1.0", "2.1rc3", "1.0.post1", "2026.11.27", "1.0a1.dev2"])
def test_versions_that_pip_reads(small: Path, tmp_path: Path, version: str):
    wheel = write_wheel([small / "causal"], "a_b2", version, tmp_path)
    pip_install(wheel, "--target", tmp_path / "site")
    assert (tmp_path / "site" / f"attngen_artefacts_a_b2-{version}.dist-info" / "RECORD").exists()


def test_the_command(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["package", str(small), "--name", "mine", "--version", "1.0", "-o", str(tmp_path)]
    assert main(arguments) == 0
    (wheel,) = tmp_path.glob("*.whl")
    assert capsys.readouterr().out.split()[0] == str(wheel)
    assert main(["package", str(tmp_path), "--name", "mine", "--version", "1.0"]) == 2
    assert "is no artefact and holds none" in capsys.readouterr().err
    assert main(["package", str(tmp_path / "none"), "--name", "mine", "--version", "1.0"]) == 2
    assert main([*arguments[:-1], str(wheel)]) == 2
    assert "nothing can be written" in capsys.readouterr().err
