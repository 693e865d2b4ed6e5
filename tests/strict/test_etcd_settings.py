"""The table [discovery.etcd]: the example is good, every mistake has its line and its fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strict.config import read_config
from strict.discovery.etcd.settings import EtcdSettings
from strict.document import DocumentRefused
from strict.sources import own_node
from tests.strict.test_files import AGENT, EXAMPLES

ROOT = EXAMPLES.parents[1]
GOOD = AGENT + """
[[node]]
name = "n"
addresses = ["192.168.5.1"]

[discovery.etcd]
endpoints = ["https://10.0.0.1:2379"]
"""


def refused(path: Path) -> str:
    with pytest.raises(DocumentRefused) as caught:
        own_node(read_config(path))
    return str(caught.value)


def test_the_example_is_good() -> None:
    config = read_config(EXAMPLES / "strict-etcd.toml")
    assert config.etcd is not None and len(config.etcd.endpoints) == 3
    assert (config.etcd.cluster, config.etcd.address_space, config.etcd.ttl) == (
        "default", "default", 900)  # fmt: skip
    assert own_node(config).pod_cidrs and own_node(config).public_key is None


def test_all_that_can_be_said(tmp_path: Path) -> None:
    for name in ("ca.crt", "n.crt", "n.key", "password"):
        (tmp_path / name).write_text("x")
    path = tmp_path / "node.toml"
    path.write_text(GOOD + (
        'ca = "ca.crt"\ncert = "n.crt"\nkey = "n.key"\nuser = "n"\npassword_file = "password"\n'
        'cluster = "east"\nprefix = "a/b"\nttl = 60\n'
    ))  # fmt: skip
    assert read_config(path).etcd == EtcdSettings(
        ("https://10.0.0.1:2379",), tmp_path / "ca.crt", tmp_path / "n.crt", tmp_path / "n.key",
        "n", tmp_path / "password", "east", "a/b", "east", 60)  # fmt: skip
    path.write_text(GOOD.replace("https://10.0.0.1", "http://[::1]"))
    assert read_config(path).etcd == EtcdSettings(("http://[::1]:2379",))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('["https://10.0.0.1:2379"]', "[]", 12, "'endpoints' is missing"),
        ("https://10.0.0.1:2379", "10.0.0.1:2379", 13, "write https://HOST:2379"),
        ("https://10.0.0.1:2379", "https://10.0.0.1", 13, "write https://HOST:2379"),
        ("https://10.0.0.1:2379", "https://10.0.0.1:x", 13, "write https://HOST:2379"),
        ("https://10.0.0.1:2379", "https://u@h:1/path", 13, "write https://HOST:2379"),
        ("https://10", "http://10", 13, "or set allow_plaintext = true"),
        ("[discovery.etcd]", '[discovery.etcd]\nca = "no"', 13, "no such file"),
        ("[discovery.etcd]", '[discovery.etcd]\ncert = "node.toml"', 13, "needs 'key' beside it"),
        ("[discovery.etcd]", '[discovery.etcd]\nuser = "u"', 13, "belong together"),
        ("[discovery.etcd]", '[discovery.etcd]\ncluster = "a/b"', 13, "letters, digits"),
        ("[discovery.etcd]", '[discovery.etcd]\nprefix = "/a"', 13, "with / between them"),
        ("[discovery.etcd]", "[discovery.etcd]\nttl = 1", 13, "must be a number from 5 to 86400"),
        ("[discovery.etcd]", "[discovery.etcd]\nend = 1", 13, "discovery.etcd.end: unknown key"),
        ("[discovery.etcd]", "[discovery]\netcd = 1\n[x]", 13, "discovery.etcd: must be a table"),
        ('name = "n"\naddr', 'name = "m"\naddr', 0, "write one with its addresses and pod_cidrs"),
        ("pod_cidrs", 'mode = "default"\n#', 5, "etcd needs pod_cidrs"),
    ],
)
def test_mistakes_by_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(GOOD.replace(old, new))
    text = refused(path)
    assert (f"{path}:{line}: " if line else f"{path}: ") in text and message in text


def test_the_units_start_what_there_is() -> None:
    """Ready and watchdog by sd_notify(3); neither unit ends the data plane with the agent."""
    unit = (ROOT / "install" / "wgpy-strict@.service").read_text()
    for line in ("Type=notify", "WatchdogSec=30", "KillMode=process", "Restart=always",
                 "TimeoutStartSec=infinity"):  # fmt: skip
        assert f"\n{line}\n" in unit
    command = re.search(r"^ExecStart=wgpy (.*)$", unit, re.MULTILINE)
    assert command is not None and command[1] == (
        "strict run --config /etc/wgpy/%i.toml --log json")
    other = (ROOT / "install" / "wgpy-strict-dataplane@.service").read_text()
    assert "\nType=forking\n" in other and "ExecStart=wireguard-py --policy strict %i" in other
