"""The files of a node: the examples are good, every mistake is named with its line."""

from __future__ import annotations

import errno
import io
import os
import select
from pathlib import Path

import pytest

from strict.config import read_config
from strict.discovery import EntryDelete, EntryUpsert, NodeDelete, NodeUpsert, Synced
from strict.discovery.static import StaticDiscovery
from strict.document import DocumentRefused
from strict.keyfile import read_or_make_key
from strict.settings import Mode
from tests.strict.helpers import key, p

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

AGENT = """\
[agent]
name = "n"
underlay = ["eth0"]

[strict]
pod_cidrs = ["10.244.0.0/16"]
"""


def refused(path: Path) -> str:
    with pytest.raises(DocumentRefused) as caught:
        read_config(path)
    return str(caught.value)


def test_the_examples_are_good() -> None:
    config = read_config(EXAMPLES / "strict-node.toml")
    assert config.table.mode is Mode.STRICT and config.cluster == EXAMPLES / "cluster.toml"
    discovery = StaticDiscovery(config.cluster)
    updates = discovery.poll()
    assert not discovery.problem
    assert [u.node.name for u in updates if isinstance(u, NodeUpsert)] == [
        "control-1", "worker-1", "worker-2"]
    assert sum(isinstance(u, EntryUpsert) for u in updates) == 2
    assert updates[-1] == Synced()


def test_one_file_for_all_and_yaml(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(
        "agent: {name: n, underlay: [eth0]}\nstrict: {mode: default, pod_cidrs: [10.0.0.0/8]}\n"
        f"node:\n- name: n\n  addresses: [192.168.5.1]\n  public_key: {key(1).base64}\n"
        "endpoint:\n- {ip: 10.0.0.1, node: n}\n"
    )
    config = read_config(path)
    assert config.cluster == path and config.table.mode is Mode.DEFAULT
    discovery = StaticDiscovery(path)
    assert len(discovery.poll()) == 3 and not discovery.problem


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"n"', "7", 2, "agent.name: must be a text"),
        ('name = "n"', "", 1, "agent: 'name' is missing"),
        ('underlay = ["eth0"]', "", 1, "'underlay' is missing"),
        ('["eth0"]', "[1]", 3, "agent.underlay[0]: must be a text"),
        ('["eth0"]', '["eth0"]\nlisten_port = 0', 4, "agent.listen_port: must be a number from 1"),
        ('["eth0"]', '["eth0"]\ninterface = "a b"', 4, "agent.interface: must be 1 to 15"),
        ('["eth0"]', '["eth0"]\nintreface = "a"', 4, "agent.intreface: unknown key"),
        ("10.244.0.0/16", "10.244.1.0/16", 6, "host bits set: write 10.244.0.0/16"),
        ("10.244.0.0/16", "10.244.0.0/33", 6, "strict.pod_cidrs[0]: not a prefix length"),
        ("[strict]", '[strict]\nmode = "strickt"', 6, "strict.mode: 'strickt' is not a mode"),
        ("[strict]", "[strict]\ningress = 1", 6, "strict.ingress: must be true or false"),
        ("[strict]", '[strict]\nnode_cidrs = ["10.244.9.0/24"]', 6, "drop all traffic"),
        ("[strict]", '[strict]\nnode_encryption_opt_out = "=x"', 6, "not a label selector"),
        ("[strict]", '[strict]\ncontrol_plane = "x"', 6, "strict.control_plane: must be a list"),
        ("[strict]", "[strickt]", 5, "strickt: unknown section"),
        ("[agent]", "[agent", 1, "not TOML"),
    ],
)
def test_mistakes_by_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(AGENT.replace(old, new))
    text = refused(path)
    assert f"{path}:{line}: " in text and message in text


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(AGENT.replace('"n"', "7").replace("10.244", "300.1") + "extra = 1\n")
    assert len(refused(path).splitlines()) == 3


def test_not_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "missing.toml")
    (tmp_path / "x.ini").write_text("")
    assert "name it .toml" in refused(tmp_path / "x.ini")
    (tmp_path / "x.yaml").write_text("agent:\n  name: a\n  name: b\n")
    assert "x.yaml:3: agent.name: duplicate key" in refused(tmp_path / "x.yaml")
    (tmp_path / "y.yaml").write_text("agent:\n  name: [a\n")
    assert "not YAML" in refused(tmp_path / "y.yaml")
    (tmp_path / "z.yaml").write_text("- a\n")
    assert "must be a table" in refused(tmp_path / "z.yaml")


def cluster(*nodes: str, endpoints: str = "") -> str:
    return "".join(f"[[node]]\n{text}\n" for text in nodes) + endpoints


def node(name: str, number: int, more: str = "") -> str:
    return (f'name = "{name}"\naddresses = ["192.168.5.{number}"]\n'
            f'public_key = "{key(number).base64}"\n{more}')


class TestReload:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "cluster.toml"

    @staticmethod
    def write(path: Path, text: str) -> None:
        part = path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, path)  # noqa: PTH105

    def test_only_differences(self, path: Path) -> None:
        pod = '[[endpoint]]\nip = "10.0.0.{}"\nnode = "b"\n'
        self.write(path, cluster(node("a", 1), node("b", 2), endpoints=pod.format(1)))
        discovery = StaticDiscovery(path)
        assert discovery.poll()[-1] == Synced()
        assert discovery.poll() == ()
        self.write(path, cluster(node("b", 2), node("c", 3), endpoints=pod.format(2)))
        updates = discovery.poll()
        assert [type(u) for u in updates] == [NodeDelete, EntryDelete, NodeUpsert, EntryUpsert]
        assert updates[1].prefix == p("10.0.0.1")
        self.write(path, cluster(node("b", 2), node("c", 3), endpoints=pod.format(2)) + "\n# !\n")
        assert list(discovery.poll()) == []

    def test_a_key_moves(self, path: Path) -> None:
        self.write(path, cluster(node("a", 1), node("b", 2)))
        discovery = StaticDiscovery(path)
        discovery.poll()
        swapped = cluster(node("a", 1), node("b", 2)).replace(key(1).base64, "X")
        swapped = swapped.replace(key(2).base64, key(1).base64).replace("X", key(2).base64)
        self.write(path, swapped)
        updates = [u.node.public_key for u in discovery.poll() if isinstance(u, NodeUpsert)]
        assert updates == [None, None, key(2), key(1)], "let go before it is taken"

    @pytest.mark.parametrize(
        ("text", "place", "message"),
        [
            (cluster(node("a", 1), node("b", 1)), 9, "both claim the key"),
            (cluster(node("a", 1), node("a", 2)), 7, "'a' comes twice"),
            (cluster('name = "a"\naddresses = ["192.168.5"]'), 3, "not an IP address"),
            (cluster('name = "a"'), 1, "a node needs at least one of its `addresses`"),
            (cluster(node("a", 1, 'endpoint = "1.2.3.4"')), 5, "not an endpoint"),
            (cluster(node("a", 1, "labels = { x = 1 }")), 5, "must be a text"),
            (cluster(node("a", 1)).replace("Q", "?"), 4, "not a base64 key"),
            ('[[endpoint]]\nnode = "a"\n', 1, "'ip' is missing"),
            ('[[endpoint]]\nip = "10.0.0.1"\n', 1, "'node' is missing"),
            ('[[endpoint]]\nip = "10.0.0.1"\nnode = "a"\nsource = "gossip"\n', 4,
             "unknown source 'gossip': one of kube-apiserver"),
            ('[[endpoint]]\nip = "10.0.0.1"\nnode = "a"\nidentity = -1\n', 4, "a number from 0"),
            ('[[endpoint]]\nip = "10.0.0.1"\nnode = "a"\n' * 2, 5, "comes twice"),
            ("endpoint = 3\n", 1, "must be a list of tables"),
            ("[[nodes]]\n", 1, "unknown section"),
            (cluster(node("a", 1, f'public_key2 = "{key(3).base64}"')), 5, "unknown key"),
            (cluster(f'name = "z"\naddresses = ["1.2.3.4"]\npublic_key = "{"A" * 43}="'), 4,
             "all-zero key"),
        ],
    )
    def test_a_bad_file_is_refused_whole(
        self, path: Path, text: str, place: int, message: str
    ) -> None:
        self.write(path, cluster(node("good", 7)))
        discovery = StaticDiscovery(path)
        discovery.poll()
        self.write(path, text + "\n# and something good\n" + cluster(node("new", 8)))
        assert list(discovery.poll()) == []
        assert f"{path}:{place}: " in discovery.problem and message in discovery.problem
        assert list(discovery.poll()) == [] and discovery.reloads == 1
        self.write(path, cluster(node("good", 7), node("new", 8)))
        assert [u.node.name for u in discovery.poll()] == ["new"]
        assert not discovery.problem

    def test_a_change_rings(self, path: Path) -> None:
        self.write(path, cluster(node("a", 1)))
        discovery = StaticDiscovery(path)
        discovery.poll()
        assert not select.select([discovery], [], [], 0)[0]
        self.write(path, cluster(node("b", 2)))
        assert select.select([discovery], [], [], 5)[0]
        assert discovery.poll() and not select.select([discovery], [], [], 0)[0]
        discovery.close()
        assert discovery.fileno() == -1

    def test_no_folder_no_bell(self, tmp_path: Path) -> None:
        assert StaticDiscovery(tmp_path / "nowhere" / "x.toml").fileno() == -1

    def test_an_empty_file_does_not_empty_the_cluster(self, path: Path) -> None:
        self.write(path, cluster(node("a", 1)))
        discovery = StaticDiscovery(path)
        discovery.poll()
        path.write_text("")
        assert list(discovery.poll()) == []
        assert f"{path}: no [[node]]" in discovery.problem

    def test_the_file_vanishes_and_what_was_known_stays(self, path: Path) -> None:
        self.write(path, cluster(node("a", 1)))
        discovery = StaticDiscovery(path)
        discovery.poll()
        path.unlink()
        assert list(discovery.poll()) == [] and "cannot be read" in discovery.problem


class TestKeyFile:
    def test_made_when_missing_for_nobody_else_to_read(self, tmp_path: Path) -> None:
        path = tmp_path / "n.key"
        made = read_or_make_key(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_or_make_key(path) == made

    @pytest.mark.parametrize("text", ["", "secret-but-wrong", "A" * 43 + "=", "\xff"])
    def test_refused_without_showing_it(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "n.key"
        path.write_text(text, encoding="latin-1")
        path.chmod(0o600)
        with pytest.raises(ValueError, match=r"n\.key") as caught:
            read_or_make_key(path)
        assert not text or text not in str(caught.value)

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
    def test_a_file_that_others_get_at_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "n.key"
        read_or_make_key(path)
        path.chmod(mode)
        with pytest.raises(ValueError, match=rf"mode {mode:04o}.*chmod 600"):
            read_or_make_key(path)

    @pytest.mark.parametrize("fault", ["write", "fsync", "hardlink_to"])
    def test_a_full_disk_leaves_nothing_in_the_way_of_the_next_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        path = tmp_path / "n.key"

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        class Full(io.StringIO):
            write = full  # type: ignore[assignment]

        with monkeypatch.context() as patch:
            if fault == "write":
                patch.setattr(os, "fdopen", lambda *_: Full())
            else:
                patch.setattr(os if fault == "fsync" else Path, fault, full)
            with pytest.raises(OSError, match="No space left"):
                read_or_make_key(path)
        assert list(tmp_path.iterdir()) == []
        read_or_make_key(path)
        assert list(tmp_path.iterdir()) == [path]

    def test_two_that_make_it_at_once_have_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "n.key"
        first = []
        sync = os.fsync

        def meanwhile(descriptor: int) -> None:
            monkeypatch.setattr(os, "fsync", sync)
            first.append(read_or_make_key(path))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", meanwhile)
        assert read_or_make_key(path) == first[0] == read_or_make_key(path)
