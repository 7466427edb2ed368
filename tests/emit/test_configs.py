"""Configurations survive being written down, and one of another version is not taken for one of this."""

from __future__ import annotations

import json

import pytest

from attngen.emit.configs import config_from_json, config_to_json
from attngen.emit.cpu_config import CpuConfig
from attngen.emit.triton.config import TritonConfig
from attngen.errors import InternalError


@pytest.mark.parametrize(
    ("backend", "config"),
    [
        ("cpu", CpuConfig(96, 48, 3)),
        ("triton", TritonConfig(128, 64, 8, 3)),
        ("triton", TritonConfig(64, 64, 4, 2, 168)),
    ],
)
def test_a_configuration_comes_back_as_it_was(backend, config):
    assert config_from_json(backend, json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    "change",
    [{"block_q": "96"}, {"block_q": -1}, {"block_q": True}, {"more": 1}, {"block_k": None}],
)
def test_what_is_not_understood_is_no_configuration(change):
    assert config_from_json("cpu", {**config_to_json(CpuConfig(96, 48)), **change}) is None


def test_a_field_that_lacks_is_not_guessed():
    document = config_to_json(CpuConfig(96, 48))
    del document["threads"]
    assert config_from_json("cpu", document) is None


def test_a_backend_without_configurations():
    with pytest.raises(InternalError, match="no configurations"):
        config_from_json("reference", {})
