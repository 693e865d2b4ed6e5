"""The control socket: framing, transactions, events, and that nothing holds up the loop.

A real `ControlServer` and `StrictPolicy` in a real loop on an in-memory interface; the
client is the one that the agent and the command line use, over a real unix socket.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strict.client import StrictClient
from strict.ipcache import Source
from strict.policy import StrictPolicy
from strict.settings import Mode
from tests.control.plane import Plane
from tests.strict.helpers import a, config, entry, key, node, p, table, tcp
from wgpy.control.client import ControlFailed
from wgpy.control.events import describe_drop
from wgpy.control.framing import MAX_LINE
from wgpy.protocol.drops import DropReason
from wgpy.protocol.events import Direction, PacketDropped


class StrictPlane(Plane):
    """A data plane behind the strict policy."""

    def __init__(self, folder: Path) -> None:
        self.policy: StrictPolicy
        super().__init__(folder, StrictPolicy())

    def client(self) -> StrictClient:
        return StrictClient("wgx", self.folder)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[StrictPlane]:
    made = StrictPlane(tmp_path)
    yield made
    made.close()


def load(client: StrictClient, mode: Mode = Mode.STRICT) -> None:
    made = table(mode)
    client.replace(config(mode), made.nodes, made.ipcache)


def lines(connection: socket.socket, count: int) -> list[dict[str, Any]]:
    with connection.makefile("rb") as stream:
        return [json.loads(stream.readline()) for _ in range(count)]


class TestFraming:
    def test_only_root_may_connect(self, plane: StrictPlane) -> None:
        assert (plane.folder / "wgx.control").stat().st_mode & 0o777 == 0o600

    def test_hello(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            assert client.hello["schema"] == 1 and client.hello["interface"] == "wgx"
            assert client.hello["policy"]["loaded"] is False

    @pytest.mark.parametrize(
        ("line", "code", "text"),
        [
            (b"what?", "invalid", "not one JSON object"),
            (b"[1]", "invalid", "not one JSON object"),
            (b"[" * 100_000, "invalid", "not one JSON object"),
            (b'{"id": 7}', "invalid", '"op" must be a text'),
            (b'{"id": 7, "op": "fly"}', "unknown_op", "unknown operation 'fly'"),
            (b'{"op": "subscribe", "events": ["x"]}', "invalid", "must be a list of drops"),
            (b'{"op": "get"}', "invalid", "prefix is missing"),
            (b'{"op": "get", "prefix": "10.0.0.0/99"}', "invalid", "not a prefix length"),
            (b'{"op": "explain", "source": "::1", "destination": 4}', "invalid", "destination"),
            (b'{"op": "commit"}', "state", "send begin first"),
            (b'{"op": "set_mode", "mode": "strict"}', "state", "not loaded yet"),
            (b'{"op": "begin", "config": {}}', "invalid", "needs pod_cidrs"),
            (b'{"op": "begin", "config": {"mod": 1}}', "invalid", "unknown keys mod"),
            (b'{"op": "begin", "config": {"mode": "off"}}', "invalid", "mode"),
            (b'{"op": "update", "nodes": [{"name": "x", "public_key": "x"}]}', "invalid",
             "node 'x': public_key: not a base64 key"),
            (b'{"op": "update", "entries": [["10.0.0.1/32", "n"]]}', "invalid", "not an entry"),
            (b'{"op": "update", "entries": 1}', "invalid", "entries must be a list"),
            (b'{"op": "update", "delete_entries": [["10.0.0.1/32", "x"]]}', "invalid",
             "not a deletion"),
            (json.dumps({"op": "update", "delete_nodes": ["n"] * 2001}).encode(), "invalid",
             "at most 2000"),
        ],
    )
    def test_refusals(self, plane: StrictPlane, line: bytes, code: str, text: str) -> None:
        with plane.raw() as connection:
            connection.sendall(line + b'\n{"id": "next", "op": "hello"}\n')
            refused, after = lines(connection, 2)
        assert refused["ok"] is False and refused["code"] == code and text in refused["error"]
        assert after["ok"] is True and after["id"] == "next", "the connection goes on"

    def test_pieces_and_many_at_once(self, plane: StrictPlane) -> None:
        with plane.raw() as connection:
            for byte in b'{"id":1,"op":"hello"}':
                connection.sendall(bytes([byte]))
            requests = b"".join(b'{"id":%d,"op":"hello"}\n' % n for n in range(2, 100))
            connection.sendall(b"\n\n" + requests)
            assert [line["id"] for line in lines(connection, 99)] == list(range(1, 100))

    def test_a_line_too_long(self, plane: StrictPlane) -> None:
        with plane.raw() as connection:
            # The server stops reading as soon as it has seen too much.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"x" * (MAX_LINE + 70_000))
            (refused,) = lines(connection, 1)
            assert refused["code"] == "too_long"

    def test_half_closed_clients_get_their_answer(self, plane: StrictPlane) -> None:
        with plane.raw() as connection:
            connection.sendall(b'{"id":1,"op":"hello"}\n')
            connection.shutdown(socket.SHUT_WR)
            assert lines(connection, 1)[0]["id"] == 1
            assert connection.recv(1) == b""

    def test_nobody_there(self, tmp_path: Path) -> None:
        with pytest.raises(ControlFailed, match=r"no control socket.*wgpy strict run"):
            StrictClient("wgy", tmp_path)


class TestTransactions:
    def test_replace_is_atomic_and_complete(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            generation = plane.policy.generation
            assert {item["name"] for item in client.stream("nodes", "nodes")} == {
                "here", "there", "pods", "keyless"}
            entries = [entry(f"10.244.7.{n}", "pods") for n in range(250)]
            client.replace(config(), [node("pods", 3)], entries)
            assert len(list(client.stream("entries", "entries"))) == 250
            assert plane.policy.generation > generation
            assert client.request("get", prefix="10.244.3.7/32")["entries"] == []

    def test_nothing_is_seen_before_the_commit(self, plane: StrictPlane) -> None:
        with plane.client() as builder, plane.client() as client:
            load(client)
            builder.request("begin", config=client.request("status")["policy"]["config"])
            builder.request("load", entries=[["10.244.9.9/32", "x", 1, True, "api"]])
            state = client.request("status")["policy"]
            assert (state["entries"], state["nodes"], state["loads"]) == (6, 4, 1)

    @pytest.mark.parametrize(
        "bad",
        [
            {"entries": [["10.244.9.9/32", "x", 1, True, "api"], ["nonsense"]]},
            {"nodes": [{"name": "a", "public_key": key(1).base64},
                       {"name": "b", "public_key": key(1).base64}]},
            {"nodes": [{"name": "a", "addresses": ["10.244.9.9"]}]},
            {"entries": [["10.244.9.9/32", "x", -1, True, "api"]]},
        ],
    )
    def test_a_bad_one_leaves_the_old_table(self, plane: StrictPlane, bad: dict[str, Any]) -> None:
        with plane.client() as client:
            load(client)
            settings = client.request("status")["policy"]["config"]
            client.request("begin", config=settings)
            with pytest.raises(ControlFailed):
                client.request("load", **bad)
            client.request("load", entries=[["10.244.9.8/32", "x", 1, True, "api"]])
            with pytest.raises(ControlFailed, match="the old table stays"):
                client.request("commit")
            assert client.request("status")["policy"]["entries"] == 6
            assert client.request("match", address="10.244.9.8")["entry"] is None

    def test_a_client_that_dies_half_way(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            dying = plane.client()
            dying.request("begin", config=client.request("status")["policy"]["config"])
            dying.request("load", entries=[["10.244.9.8/32", "x", 1, True, "api"]])
            dying.close()
            assert client.request("status")["policy"]["entries"] == 6
            client.request("begin", config=client.request("status")["policy"]["config"])
            client.request("abort")

    def test_a_full_table_comes_in_bounded_slices(self, plane: StrictPlane) -> None:
        """Between any two requests of a bulk load, others have their turn."""
        turns: list[int] = []
        stop = threading.Event()

        def other() -> None:
            with plane.client() as second:
                while not stop.is_set():
                    turns.append(second.request("status")["policy"]["loads"])

        thread = threading.Thread(target=other)
        thread.start()
        with plane.client() as client:
            client.replace(config(), [], (entry(f"10.244.{n >> 8}.{n & 255}", "pods")
                                          for n in range(20_000)))
            assert client.request("status")["policy"]["entries"] == 20_000
        stop.set()
        thread.join(20)
        assert turns.count(0) >= 5, "the other client was answered while the load went on"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8)
    | st.sampled_from(["10.244.1.1", "10.0.0.0/8", "fd00::1", "strict", key(1).base64, "api"]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.sampled_from(["name", "node", "mode", "pod_cidrs", "labels"]), inner),
    max_leaves=12,
)
arguments = st.dictionaries(
    st.sampled_from(["id", "config", "nodes", "entries", "delete_nodes", "delete_entries", "mode",
                     "prefix", "address", "source", "destination", "peer", "source_port",
                     "destination_port", "events"]),
    json_values, max_size=5,
)
operations = st.sampled_from([
    "hello", "status", "counters", "subscribe", "unsubscribe", "begin", "load", "commit", "abort",
    "update", "configure", "set_mode", "get", "match", "entries", "nodes", "explain",
    "explain_ingress"])


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(operations, arguments), min_size=1, max_size=8))
def test_whatever_comes_is_answered(plane: StrictPlane, requests: list[tuple[str, Any]]) -> None:
    """No request ends the data plane or meets a defect."""
    with plane.client() as client:
        for op, sent in requests:
            sent.pop("id", None)
            try:
                if op in ("entries", "nodes"):
                    list(client.stream(op, op, **sent))
                else:
                    client.request(op, **sent)
            except ControlFailed as error:
                assert error.code in ("invalid", "refused", "state"), str(error)


class TestUpdates:
    def test_single_changes(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            assert client.update(nodes=[node("keyless", 4)],
                                 entries=[entry("10.244.9.9", "keyless")]) == []
            found = client.request("explain", source="10.244.1.5", destination="10.244.9.9")
            assert (found["rule"], found["outcome"]) == (3, "encrypted")
            client.update(delete_entries=[(p("10.244.9.9"), Source.CUSTOM_RESOURCE)],
                          delete_nodes=["keyless"])
            found = client.request("explain", source="10.244.1.5", destination="10.244.9.9")
            assert (found["rule"], found["reason"]) == (5, "UNENCRYPTED_TRAFFIC")

    def test_refused_nodes_are_named(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            (refused,) = client.update(nodes=[node("thief", 2)])
            assert refused["node"] == "thief" and "'there' and 'thief'" in refused["error"]

    def test_modes_and_settings(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            flow = {"source": "10.244.1.5", "destination": "10.244.6.6"}
            assert client.request("explain", **flow)["outcome"] == "dropped"
            client.request("set_mode", mode="default")
            assert client.request("explain", **flow)["outcome"] == "plaintext"
            with pytest.raises(ControlFailed):
                client.request("set_mode", mode="loose")
            assert client.request("explain", **flow)["outcome"] == "plaintext"

    def test_who_holds_the_table_alone_changes_it(self, plane: Plane) -> None:
        with plane.client() as other:
            with plane.client() as agent:
                load(agent)
                agent.request("hold")
                for op in ("hold", "begin", "set_mode", "configure", "update", "commit"):
                    with pytest.raises(ControlFailed) as refused:
                        other.request(op, mode="default")
                    assert refused.value.code == "held", op
                assert other.request("hello")["policy"]["config"]["mode"] == "strict"
                agent.request("set_mode", mode="strict")

            def free() -> bool:
                with contextlib.suppress(ControlFailed):
                    other.request("set_mode", mode="default")
                return bool(other.request("hello")["policy"]["config"]["mode"] == "default")

            assert any(free() for _ in range(100)), "nobody holds it any more"

    def test_explaining_row_9(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            made = table(node_encryption=True, control_plane=(p("192.168.5.99"),))
            client.replace(made.config, made.nodes, made.ipcache)
            flow = {"source": "192.168.5.1", "destination": "192.168.5.99"}
            assert client.request("explain", **flow)["outcome"] == "dropped"
            found = client.request("explain", destination_port=2379, **flow)
            assert (found["rule"], found["outcome"], found["per_packet"]) == (9, "plaintext", True)
            flow = {"source": "fd00:5::1", "destination": "fd00:5::99"}
            assert client.request("explain", destination_port=2379, **flow)["outcome"] == "dropped"

    def test_questions(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            found = client.request("match", address="10.244.2.9")
            assert found["pod_cidr"] == ["10.244.2.0/24", "there"] and found["kind"] == "pod"
            found = client.request("match", address="192.168.5.2")
            assert found["node_address_of"] == "there" and found["kind"] == "node"
            flow = {"source": "10.244.2.9", "destination": "10.244.1.5"}
            found = client.request("explain_ingress", peer=key(3).base64, **flow)
            assert found["reason"] == "SOURCE_NOT_ON_NODE"
            assert "is on 'there'; it came from node 'pods'" in found["missing"]


class TestEvents:
    def test_drops_with_their_5_tuple(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            plane.send(tcp("10.244.1.5", "10.244.6.6", 40000, 443))
            client.subscribe("drops")
            plane.send(tcp("10.244.1.5", "10.244.6.6", 40001, 443), b"\x45")
            first, second = list(client.events(1.0))
            assert (first["reason"], first["direction"], first["protocol"]) == (
                "UNENCRYPTED_TRAFFIC", "egress", "tcp")
            assert (first["source"], first["source_port"]) == ("10.244.1.5", 40001)
            assert (first["destination"], first["destination_port"]) == ("10.244.6.6", 443)
            assert second["reason"] == "MALFORMED" and second["source"] is None
            assert client.request("counters")["drops"]["UNENCRYPTED_TRAFFIC"] == 2

    def test_verdicts_once_per_flow(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            client.subscribe("verdicts")
            packet = tcp("10.244.1.5", "10.244.6.6", 40001, 443)
            plane.send(packet, packet, packet)
            (event,) = list(client.events(0.5))
            assert (event["event"], event["rule"], event["direction"]) == ("verdict", 5, "egress")
            client.request("set_mode", mode="default")
            plane.send(packet, packet)
            (event,) = list(client.events(0.5))
            assert event["outcome"] == "plaintext"

    def test_tracing_is_off_when_nobody_listens(self, plane: StrictPlane) -> None:
        assert not plane.engine.trace_drops
        with plane.client() as other:
            with plane.client() as client:
                client.subscribe("drops", "verdicts")
                assert plane.engine.trace_drops and plane.policy.verdict_listener is not None
                client.request("unsubscribe", events=["verdicts"])
                assert plane.policy.verdict_listener is None
            other.request("hello")
            assert not plane.engine.trace_drops

    def test_who_does_not_read_loses_events_and_is_told(self, plane: StrictPlane) -> None:
        with plane.client() as client:
            load(client)
            client.subscribe("drops")
            packet = tcp("10.244.1.5", "10.244.6.6", 40001, 443)
            for _ in range(100):
                plane.send(*[packet] * 100)
            seen = lost = 0
            for event in client.events(1.0):
                if event["event"] == "lost":
                    lost += event["count"]
                else:
                    seen += 1
                if seen == 1:
                    assert plane.thread.is_alive()
            plane.send(packet)
            for event in client.events(1.0):
                lost += event.get("count", 0)
                seen += event["event"] == "drop"
            assert lost > 0 and seen + lost == 10_001


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (tcp("10.0.0.1", "10.0.0.2", 1, 2), ("tcp", 1, 2)),
        (tcp("10.0.0.1", "10.0.0.2", 1, 2, options=b"\x01\x01\x01\x00"), ("tcp", 1, 2)),
        (tcp("10.0.0.1", "10.0.0.2", 1, 2, offset=3), ("tcp", None, None)),
        (tcp("fd00::1", "fd00::2", 1, 2), ("tcp", 1, 2)),
        (tcp("fd00::1", "fd00::2", 1, 2, offset=3), ("44", None, None)),
        (b"\x45" + bytes(8) + b"\x01" + bytes(10), ("icmp", None, None)),
        (b"\x45" + bytes(8) + b"\xfd" + bytes(10), ("253", None, None)),
        (b"\x45", (None, None, None)),
        (b"", (None, None, None)),
    ],
)
def test_describing_a_drop(head: bytes, expected: tuple[object, ...]) -> None:
    event = PacketDropped(0, key(1), DropReason.NO_PEER, Direction.EGRESS, len(head),
                          source=a("10.0.0.1"), head=head[:64])
    told = describe_drop(event, 5)
    assert (told["protocol"], told["source_port"], told["destination_port"]) == expected
    assert told["sentence"] == DropReason.NO_PEER.sentence and told["time"] == 5
    assert told["peer"] == key(1).base64 and told["destination"] is None
