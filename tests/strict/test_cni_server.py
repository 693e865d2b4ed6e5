"""The agent's end of `wgpy-cni`: what it answers when, and to whom."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from strict.cni import server
from strict.cni.client import ask
from strict.cni.errors import CniError
from strict.discovery import EntryDelete, EntryUpsert, Synced
from tests.strict.cni import PretendedAgent, running

ONE = {"network": "pods", "container": "one", "ifname": "eth0"}


@pytest.fixture
def agent(tmp_path):
    made = PretendedAgent(tmp_path)
    made.tick()
    yield made
    made.source.close()


class Talk:
    """A connection on which the test decides when the agent has its turn."""

    def __init__(self, agent: PretendedAgent) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(agent.folder / "wgcni.cni"))
        self.socket.settimeout(0)

    def send(self, op: str, **more: object) -> None:
        self.socket.sendall(json.dumps({"id": 7, "op": op, **more}).encode() + b"\n")

    def answer(self) -> dict | None:
        """None when there is none yet."""
        try:
            return json.loads(self.socket.recv(65536))
        except BlockingIOError:
            return None


def test_an_add_is_answered_once_it_is_in_force(agent):
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    agent.tick()
    assert agent.known == {"10.55.1.9"} and talk.answer() is None
    agent.in_force = False
    agent.tick()
    assert talk.answer() is None
    agent.in_force = True
    agent.tick()
    assert talk.answer() == {"id": 7, "ok": True, "result": {"known": True}}


def test_an_add_that_never_comes_in_force_is_taken_back(agent, monkeypatch):
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    agent.tick()
    agent.in_force = False
    monkeypatch.setattr(server.time, "monotonic", lambda: 1e12)
    agent.tick()
    assert talk.answer()["code"] == "later"
    agent.tick()
    assert agent.known == set()


def test_an_add_whose_asker_is_gone_is_taken_back(agent):
    """A plugin that was killed cannot say that nothing became of the pod."""
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    agent.in_force = True
    agent.tick()
    agent.in_force = False
    talk.socket.close()
    agent.tick()
    agent.tick()
    agent.tick()
    assert agent.known == set()


def test_a_del_is_answered_after_the_table_was_told(agent):
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    agent.tick()
    agent.tick()
    assert talk.answer()["ok"]
    agent.in_force = False
    talk.send("del", **ONE)
    agent.tick()
    assert talk.answer() is None and agent.known == set()
    agent.tick()
    assert talk.answer()["ok"]
    talk.send("del", **ONE)
    agent.tick()
    assert talk.answer()["result"] == {"known": False}


def test_it_wakes_the_agent(agent):
    """The descriptor is readable for a request, and again until it is answered."""
    def ready() -> bool:
        return bool(select.select([agent.source.fileno()], [], [], 0)[0])

    assert ready()  # what `serve` said is in force now
    agent.tick()
    assert not ready()
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    assert ready()
    agent.tick()
    assert ready()
    agent.tick()
    assert talk.answer()["ok"] and not ready()


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[]", b"{", b'{"op":"fly"}', b'{"op":"add"}', b'{"op":"add","network":1}',
        b'{"op":"add","network":"n","container":"c","ifname":"i","ips":[]}',
        b'{"op":"add","network":"n","container":"c","ifname":"i","ips":["x"]}',
        b'{"op":"add","network":"n","container":"c","ifname":"i","ips":4}',
        b'{"op":"del"}', b"[" * 60_000,
    ],
)  # fmt: skip
def test_garbage_is_refused_and_the_next_request_served(agent, line):
    talk = Talk(agent)
    talk.socket.sendall(line + b"\n")
    agent.tick()
    assert talk.answer()["code"] == "invalid"
    talk.send("list")
    agent.tick()
    assert talk.answer()["result"] == {"pods": []}


def test_a_line_without_end_ends_the_connection(agent):
    talk = Talk(agent)
    for _ in range(3):
        talk.socket.sendall(b"x" * 30_000)
        agent.tick()
    assert talk.socket.recv(1) == b""


def test_too_many_connections_are_refused_and_the_others_served(agent, monkeypatch):
    monkeypatch.setattr(server, "MAX_CLIENTS", 2)
    talks = [Talk(agent) for _ in range(3)]
    agent.tick()
    assert talks[2].socket.recv(1) == b""
    talks[0].send("list")
    agent.tick()
    assert talks[0].answer()["ok"]


def test_only_root_may_ask(agent, monkeypatch):
    assert (agent.folder / "wgcni.cni").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(server, "_user", lambda _: 65534)
    talk = Talk(agent)
    agent.tick()
    assert talk.answer()["error"] == "only root may ask"
    assert talk.socket.recv(1) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_who_asks_is_read_from_the_kernel(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    listener.bind(str(tmp_path / "s"))
    (tmp_path / "s").chmod(0o666)
    listener.listen()
    script = "import os, socket, sys; os.setuid(1); socket.socket(1).connect(sys.argv[1]); input()"
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path / "s"], stdin=subprocess.PIPE)
    connection, _ = listener.accept()
    assert server._user(connection) == 1
    child.communicate(b"\n")


def test_two_agents_of_one_interface(agent):
    with pytest.raises(OSError, match="in use"):
        PretendedAgent(agent.folder)


def test_another_pods_address_is_refused(tmp_path):
    with running(tmp_path) as agent:
        path = str(agent.folder / "wgcni.cni")
        ask(path, "add", **ONE, ips=["10.55.1.9"])
        with pytest.raises(CniError, match="another pod has this address: eth0 of container one"):
            ask(path, "add", **ONE | {"container": "two"}, ips=["10.55.1.10", "10.55.1.9"])
        assert agent.known == {"10.55.1.9"}


def test_pods_are_remembered_by_the_next_agent(tmp_path):
    agent = PretendedAgent(tmp_path)
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"], device="lo")
    talk.send("add", **ONE | {"container": "two"}, ips=["10.55.1.10"], device="gone0")
    agent.tick()
    agent.source.close()
    again = PretendedAgent(agent.folder)
    try:
        updates = again.source.poll()
        said = [u.entry.prefix for u in updates if isinstance(u, EntryUpsert)]
        assert [str(prefix) for prefix in said] == ["10.55.1.9/32"]
        assert updates[-1] == Synced()
        talk = Talk(again)
        talk.send("del", **ONE)
        (gone,) = [u for u in again.source.poll() if isinstance(u, EntryDelete)]
        assert gone.prefix == said[0]
    finally:
        again.source.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pods": [{"network": "n"}]}'])
def test_a_spoiled_memory_is_said_and_the_agent_serves(tmp_path, text):
    (tmp_path / "wgcni.pods").write_text(text)
    agent = PretendedAgent(tmp_path)
    try:
        assert "wgcni.pods" in agent.source.problem
        assert agent.source.poll() == [Synced()]
    finally:
        agent.source.close()


def test_what_cannot_be_written_down_is_not_known(agent, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "wgcni.pods")

    monkeypatch.setattr(Path, "write_text", full)
    talk = Talk(agent)
    talk.send("add", **ONE, ips=["10.55.1.9"])
    agent.tick()
    answer = talk.answer()
    assert answer["code"] == "later" and "No space left" in answer["error"]
    assert agent.known == set()
