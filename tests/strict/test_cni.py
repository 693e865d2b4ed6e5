"""`wgpy-cni` without a network: requests, versions, errors, what it imports, installing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from strict.cli import strict
from strict.cni.errors import CniError
from strict.cni.pod import parse_prefix
from strict.cni.request import parse
from tests.support.cni import OURS
from wgpy.sockets import SOCKET_FOLDER

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "wgpy-cni", "agent": "/nowhere/x.cni"}
ENVIRONMENT = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/none", "CNI_PATH": "/usr/lib/cni",
}  # fmt: skip


def plugin(environment: dict[str, str], text: str) -> tuple[int, dict, str]:
    """Exit code, answer, and what went to stderr."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CNI_")}
    done = subprocess.run([OURS / "wgpy-cni"], input=text, capture_output=True, text=True,
                          env=clean | environment, check=False)  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def refused(environment: dict[str, str], config: object) -> CniError:
    with pytest.raises(CniError) as caught:
        parse(environment, json.dumps(config).encode())
    return caught.value


def test_version_tells_what_it_speaks():
    code, answer, _ = plugin({"CNI_COMMAND": "VERSION"}, '{"cniVersion": "1.0.0"}')
    assert code == 0
    assert answer == {"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}


def test_an_error_is_json_on_stdout_in_the_callers_version():
    config = CONFIG | {"cniVersion": "1.0.0"}
    code, answer, said = plugin(ENVIRONMENT | {"CNI_IFNAME": ""}, json.dumps(config))
    assert code == 1 and said == ""
    assert answer == {"cniVersion": "1.0.0", "code": 4, "msg": "missing or invalid: CNI_IFNAME"}


def test_started_by_a_person_it_says_what_it_is():
    code, answer, said = plugin({}, "")
    assert code == 1 and not answer
    assert "container runtime" in said and "wgpy strict cni install" in said


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "[" * 100_000])
def test_what_is_no_object_is_not_decoded(text):
    with pytest.raises(CniError) as caught:
        parse(ENVIRONMENT, text.encode())
    assert caught.value.code == 6


@pytest.mark.parametrize("verb", ["", "add", "PURGE"])
def test_unknown_verbs_are_named(verb):
    error = refused(ENVIRONMENT | {"CNI_COMMAND": verb}, CONFIG)
    assert error.code == 4 and "CNI_COMMAND" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_CONTAINERID", ""), ("CNI_CONTAINERID", "-x"), ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", ".."), ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "a:b"), ("CNI_IFNAME", "a b"), ("CNI_NETNS", ""),
    ],
)  # fmt: skip
def test_invalid_variables_are_named(name, value):
    error = refused(ENVIRONMENT | {name: value}, CONFIG)
    assert error.code == 4 and name in str(error)


def test_each_verb_needs_what_the_specification_says():
    bare = {"CNI_COMMAND": "DEL"}
    assert str(refused(bare, CONFIG)) == "missing or invalid: CNI_CONTAINERID, CNI_IFNAME"
    assert "CNI_PATH" in str(refused({"CNI_COMMAND": "GC"}, CONFIG))
    assert parse({"CNI_COMMAND": "STATUS"}, json.dumps(CONFIG).encode()).path == ()


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.2.0", "", 1, None])
def test_other_versions_are_refused(version):
    assert refused(ENVIRONMENT, CONFIG | {"cniVersion": version}).code == 1


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_the_newer_verbs_need_the_newer_version(verb):
    error = refused(ENVIRONMENT | {"CNI_COMMAND": verb}, CONFIG | {"cniVersion": "1.0.0"})
    assert error.code == 1 and verb in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""), ("name", "../x"), ("name", 3), ("agent", ""), ("agent", "relative.cni"),
        ("mtu", "1400"), ("mtu", True), ("mtu", 600), ("ipam", []), ("ipam", {"range": 1}),
        ("ipam", "host-local"), ("prevResult", "x"),
    ],
)  # fmt: skip
def test_our_own_keys_are_checked(key, value):
    if value == []:
        value = [1]
    error = refused(ENVIRONMENT, CONFIG | {key: value})
    assert error.code == 7 and repr(key) in str(error) and error.details


def test_a_namespace_that_is_not_there():
    code, answer, _ = plugin(ENVIRONMENT, json.dumps(CONFIG | {"ipam": {"type": "host-local"}}))
    assert code == 1 and answer["code"] == 3 and "CNI_NETNS" in answer["msg"]


def test_the_nodes_own_namespace_is_refused():
    environment = ENVIRONMENT | {"CNI_NETNS": "/proc/self/ns/net"}
    _, answer, _ = plugin(environment, json.dumps(CONFIG | {"ipam": {"type": "host-local"}}))
    assert answer["code"] == 4 and "own network namespace" in answer["msg"]


@pytest.mark.parametrize("name", ["nothing-of-this-name", "../bin/sh"])
def test_an_ipam_plugin_that_is_not_there(name):
    config = CONFIG | {"ipam": {"type": name}}
    code, answer, _ = plugin(ENVIRONMENT | {"CNI_COMMAND": "DEL"}, json.dumps(config))
    assert code == 1 and answer["code"] == 7 and name in answer["msg"]


@pytest.mark.parametrize("text", ["10.0.0.1/33", "10.0.0/8", "::1/129", "x", "10.0.0.1/", "1/-1"])
def test_prefixes_that_are_none(text):
    with pytest.raises(ValueError, match=r"not an IP|no valid"):
        parse_prefix(text)


def test_it_starts_without_the_heavy_libraries():
    """A pod's start pays for every import; in a quiet second it is half of 100 ms."""
    show = "import sys, strict.cni.plugin; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"pyroute2", "click", "dataclasses", "pathlib", "subprocess", "hashlib", "ctypes",
             "logging", "cryptography", "numpy", "asyncio", "ipaddress"}  # fmt: skip
    assert not loaded & heavy
    assert len(loaded) < 110


# install and uninstall.


def cni(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(strict, ["cni", *words])
    return result.exit_code, result.output


@pytest.fixture
def folders(tmp_path):
    places = [f"--config-dir={tmp_path / 'net.d'}", f"--bin-dir={tmp_path / 'bin'}"]
    return tmp_path, places, f"--config={EXAMPLES / 'strict-node.toml'}"


def test_install_writes_and_uninstall_removes(folders):
    folder, places, config = folders
    code, out = cni("install", config, "--json", *places)
    assert code == 0, out
    path, link = (Path(item) for item in json.loads(out)["written"])
    written = json.loads(path.read_text())
    assert written["plugins"][0]["agent"] == f"{SOCKET_FOLDER}/wgs-worker-1.cni"
    ranges = written["plugins"][0]["ipam"]["ranges"]
    assert ranges == [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]
    assert link.resolve() == (OURS / "wgpy-cni").resolve() and os.access(link, os.X_OK)
    first = {"cniVersion": "1.1.0", "name": written["name"], **written["plugins"][0]}
    assert parse(ENVIRONMENT, json.dumps(first).encode()).network == "wgpy"
    assert cni("install", config, *places)[0] == 0
    assert cni("uninstall", *places)[0] == 0
    assert [p for p in folder.rglob("*") if not p.is_dir()] == []
    assert cni("uninstall", *places) == (0, "nothing was installed\n")


def test_other_ranges_and_another_name(folders):
    folder, places, config = folders
    assert cni("install", config, "--network=blue", "--pod-cidr=10.244.9.0/24", *places)[0] == 0
    written = json.loads((folder / "net.d/10-blue.conflist").read_text())
    assert written["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.9.0/24"}]]


@pytest.mark.parametrize("text", ["10.244.9.1/24", "x"])
def test_ranges_that_are_none(folders, text):
    folder, places, config = folders
    code, out = cni("install", config, f"--pod-cidr={text}", *places)
    assert code == 1 and out.startswith("Error: ") and list(folder.iterdir()) == []


@pytest.mark.parametrize("content", ['{"plugins": [{"type": "bridge"}]}', "{", '{"plugins": []}'])
def test_somebody_elses_configuration_is_left_alone(folders, content):
    folder, places, config = folders
    path = folder / "net.d/10-wgpy.conflist"
    path.parent.mkdir()
    path.write_text(content)
    for words in (("install", config), ("uninstall",)):
        code, out = cni(*words, *places)
        assert code == 1 and "move it away" in out
    assert path.read_text() == content and not (folder / "bin").exists()


def test_somebody_elses_program_is_left_alone(folders):
    folder, places, config = folders
    program = folder / "bin/wgpy-cni"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    for words in (("install", config), ("uninstall",)):
        code, out = cni(*words, *places)
        assert code == 1 and "not a link" in out
    assert program.read_text() == "#!/bin/sh\n" and not (folder / "net.d").exists()


def test_when_the_configuration_cannot_be_written_there_is_no_link(folders, monkeypatch):
    folder, places, config = folders

    def full(*_):
        raise OSError(28, "No space left on device", "10-wgpy.conflist")

    monkeypatch.setattr(Path, "write_text", full)
    code, out = cni("install", config, *places)
    assert code == 1 and "No space left" in out
    assert [p for p in folder.rglob("*") if not p.is_dir()] == []
