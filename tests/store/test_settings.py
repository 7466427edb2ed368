from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import pytest

from attngen.errors import SettingsError
from attngen.store.cache import Store
from attngen.store.settings import VARIABLES, Settings, settings, settings_table


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    return monkeypatch


def test_table_and_object_agree():
    assert [v.field for v in VARIABLES] == [f.name for f in dataclasses.fields(Settings)]
    assert all(v.name == f"ATTNGEN_{v.field.upper()}" for v in VARIABLES)


@pytest.mark.usefixtures("clean")
def test_defaults():
    now = settings()
    assert (now.backend, now.threads, now.cxx, now.verify) == ("auto", None, None, False)
    assert (now.cache_limit_mb, now.lock_timeout_s) == (1024, 120.0)
    assert now.tune == "cached"


def test_a_change_is_seen_at_once(clean: pytest.MonkeyPatch, tmp_path: Path):
    before = settings()
    assert settings() is before
    clean.setenv("ATTNGEN_THREADS", "3")
    clean.setenv("ATTNGEN_CACHE_DIR", str(tmp_path))
    assert settings().threads == 3
    assert settings().cache_dir == tmp_path
    clean.delenv("ATTNGEN_THREADS")
    assert settings().threads is None


def test_cache_directory_follows_the_xdg_rules(clean: pytest.MonkeyPatch, tmp_path: Path):
    clean.setenv("HOME", str(tmp_path))
    clean.delenv("XDG_CACHE_HOME", raising=False)
    assert settings().cache_dir == tmp_path / ".cache" / "attngen"
    clean.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert settings().cache_dir == tmp_path / ".cache" / "attngen"
    clean.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert settings().cache_dir == tmp_path / "xdg" / "attngen"
    clean.setenv("ATTNGEN_CACHE_DIR", "~/mine")
    assert settings().cache_dir == tmp_path / "mine"
    clean.chdir(tmp_path)
    clean.setenv("ATTNGEN_CACHE_DIR", "here")
    assert settings().cache_dir == tmp_path / "here"


def test_a_user_without_a_home_has_a_cache_among_the_temporary_files(
    clean: pytest.MonkeyPatch, tmp_path: Path
):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    clean.delenv("XDG_CACHE_HOME", raising=False)
    clean.setenv("HOME", "/of/this/test")  # settings are read anew
    clean.setattr(Path, "home", nowhere)
    clean.setattr(tempfile, "tempdir", str(tmp_path))
    assert settings().cache_dir == tmp_path / f"attngen-{os.geteuid()}"
    assert (Store(settings().cache_dir).get_or_build("cpu", {}, lambda _: None)).exists()
    assert settings().cache_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATTNGEN_CACHE_LIMIT_MB", "0"),
        ("ATTNGEN_CACHE_LIMIT_MB", "1_0"),
        ("ATTNGEN_CACHE_LIMIT_MB", ""),
        ("ATTNGEN_THREADS", "-1"),
        ("ATTNGEN_THREADS", "two"),
        ("ATTNGEN_THREADS", "٣"),
        ("ATTNGEN_LOCK_TIMEOUT_S", "nan"),
        ("ATTNGEN_LOCK_TIMEOUT_S", "-1"),
        ("ATTNGEN_COMPILE_TIMEOUT_S", "inf"),
        ("ATTNGEN_BACKEND", "cuda"),
        ("ATTNGEN_VERIFY", "maybe"),
        ("ATTNGEN_TUNE", "always"),
        ("ATTNGEN_TUNE", "pinned:"),
        ("ATTNGEN_TUNE", "cached:table.json"),
        ("ATTNGEN_CACHE_DIR", "~no-such-user-here/x"),
    ],
)
def test_a_bad_value_names_its_variable(clean: pytest.MonkeyPatch, name: str, value: str):
    clean.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        settings()
    assert "expected" in str(caught.value)
    assert caught.value.hint
    assert "expected" in settings_table()


def test_tables_name_every_variable(clean: pytest.MonkeyPatch):
    clean.setenv("ATTNGEN_CXX", "clang++-19")
    assert "clang++-19 (set)" in settings_table()
    for variable in VARIABLES:
        assert variable.name in settings_table()
        assert f"`{variable.name}`" in settings_table(markdown=True)
