"""The UAPI server in its loop: clients that are slow, many, large, rude or gone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from contextlib import closing, suppress

import pytest

from wgpy.dataplane.loop import Loop
from wgpy.linux import unix_socket
from wgpy.linux.clock import LinuxClock
from wgpy.linux.uapi_server import MAX_CONNECTIONS, UapiServer
from wgpy.linux.unix_socket import SocketInUse, UnixListener
from wgpy.protocol.constants import NS
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import NO_PRESHARED_KEY, PublicKey
from wgpy.protocol.settings import DeviceSnapshot, PeerSnapshot
from wgpy.sockets import listens

PEER = PublicKey(bytes(range(32)))
GET = b"get=1\n\n"


class Recorder:
    """What the server configures, without a data plane."""

    def __init__(self) -> None:
        self.changes = []
        self.refuse_with = 0
        self.allowed_ips = ()
        self.threads = set()

    def configure(self, change) -> None:
        self.threads.add(threading.current_thread())
        if self.refuse_with:
            raise OSError(self.refuse_with, os.strerror(self.refuse_with))
        self.changes.append(change)

    def snapshot(self) -> DeviceSnapshot:
        self.threads.add(threading.current_thread())
        peer = PeerSnapshot(PEER, NO_PRESHARED_KEY, None, 0, 0, 0, 0, self.allowed_ips)
        return DeviceSnapshot(None, None, 7, 0, (peer,))

    def now(self) -> int:
        return 0


class Served:
    """A server, its loop turned by the test, and its clients."""

    def __init__(self, path) -> None:
        self.path = path
        self.errors = []
        self.loop = Loop(LinuxClock())
        self.recorder = Recorder()
        self.said = []
        self.server = UapiServer(
            UnixListener(path),
            self.recorder,
            self.loop,
            report=self.errors.append,
            say=self.said.append,
        )

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.setblocking(False)
        return client

    def turn_until(self, condition) -> None:
        deadline = LinuxClock.monotonic() + 20 * NS
        while not condition():
            assert LinuxClock.monotonic() < deadline
            self.loop.turn(0.05)

    def reply(self, client: socket.socket) -> str:
        """The next whole reply."""
        received = bytearray()

        def whole() -> bool:
            with suppress(BlockingIOError):
                received.extend(client.recv(1 << 20))
            return received.endswith(b"\n\n")

        self.turn_until(whole)
        return received.decode()

    def ask(self, request: bytes) -> str:
        with closing(self.connect()) as client:
            client.sendall(request)
            return self.reply(client)


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path / "run" / "wg0.sock")
    yield made
    made.server.close()
    made.loop.close()


def test_get_and_set(served):
    assert served.ask(GET).endswith("errno=0\n\n")
    assert served.ask(b"set=1\nfwmark=3\n\n") == "errno=0\n\n"
    assert [change.fwmark for change in served.recorder.changes] == [3]


def test_a_zone_is_an_interface_of_the_host(served):
    request = f"set=1\npublic_key={PEER.hex()}\nendpoint=[fe80::1%{{}}]:1\n\n"
    assert served.ask(request.format("lo").encode()) == "errno=0\n\n"
    (peer,) = served.recorder.changes[0].peers
    assert peer.endpoint.scope_id == socket.if_nametoindex("lo")
    assert served.ask(request.format("nosuchif0").encode()) == f"errno=-{errno.EINVAL}\n\n"


def test_configuration_happens_in_the_loops_thread(served):
    served.ask(GET)
    served.ask(b"set=1\nfwmark=3\n\n")
    assert served.recorder.threads == {threading.current_thread()}


def test_requests_of_one_client_are_answered_in_order(served):
    with closing(served.connect()) as client:
        client.sendall(b"set=1\nfwmark=1\n\n" + GET + b"set=1\nfwmark=2\n\n")
        replies = served.reply(client)
        while replies.count("errno=") < 3:
            replies += served.reply(client)
        assert "listen_port=7" in replies
    assert [change.fwmark for change in served.recorder.changes] == [1, 2]


def test_a_request_may_come_byte_by_byte_while_others_are_served(served):
    with closing(served.connect()) as slow:
        for byte in b"set=1\nfwmark=1\n\n":
            slow.send(bytes([byte]))
            served.loop.turn(0.01)
            if byte == ord("="):
                assert served.ask(GET).endswith("errno=0\n\n")
        assert served.reply(slow) == "errno=0\n\n"


def test_a_half_request_changes_nothing(served):
    with closing(served.connect()) as client:
        client.sendall(b"set=1\nfwmark=1\n")
    served.ask(GET)
    assert served.recorder.changes == []


def test_a_probing_client_that_says_nothing(served):
    served.connect().close()
    assert served.ask(GET).endswith("errno=0\n\n")


def test_errno_has_the_sign_that_wg_expects(served):
    served.recorder.refuse_with = errno.EADDRINUSE
    assert served.ask(b"set=1\nlisten_port=1\n\n") == f"errno=-{errno.EADDRINUSE}\n\n"
    assert served.ask(b"set=1\nfwmark=x\n\n") == f"errno=-{errno.EINVAL}\n\n"
    assert served.ask(b"get=1\nmore=1\n\n") == f"errno={errno.EPROTO}\n\n"
    assert [error.errno for error in served.errors] == [
        errno.EADDRINUSE,
        errno.EINVAL,
        errno.EPROTO,
    ]


def test_a_client_that_does_not_read_holds_nobody_up(served):
    served.recorder.allowed_ips = tuple(Prefix(number.to_bytes(4), 32) for number in range(100_000))
    with closing(served.connect()) as lazy:
        lazy.sendall(GET)
        for _ in range(20):
            served.loop.turn(0.05)
        served.recorder.allowed_ips, all_ips = (), served.recorder.allowed_ips
        assert "allowed_ip" not in served.ask(GET)
        assert served.reply(lazy).count("allowed_ip=") == len(all_ips)


def test_the_loop_turns_while_a_large_message_is_read(served):
    lines = "".join(
        f"allowed_ip=10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32\n" for n in range(120_000)
    )
    request = f"set=1\npublic_key={PEER.hex()}\n{lines}\n".encode()
    with closing(served.connect()) as client:
        sender = threading.Thread(
            target=lambda: (client.setblocking(True), client.sendall(request))
        )
        sender.start()
        turns = 0

        def applied() -> bool:
            nonlocal turns
            turns += 1
            served.loop.call(lambda: None)
            return bool(served.recorder.changes)

        served.turn_until(applied)
        sender.join()
        assert len(served.recorder.changes[0].peers[0].allowed_ips) == 120_000
        assert turns > len(request) >> 16
        client.setblocking(False)
        assert served.reply(client) == "errno=0\n\n"


def test_more_clients_than_places_wait(served):
    clients = [served.connect() for _ in range(MAX_CONNECTIONS)]
    for _ in clients:
        served.loop.turn(0.1)
    with closing(served.connect()) as late:
        late.sendall(GET)
        clients.pop().close()
        assert served.reply(late).endswith("errno=0\n\n")
    for client in clients:
        client.close()


def test_silent_clients_make_room_for_one_who_asks_the_oldest_first(served):
    clients = [served.connect() for _ in range(MAX_CONNECTIONS)]
    for _ in clients:
        served.loop.turn(0.1)
    clients[0].sendall(GET)
    assert served.reply(clients[0]).endswith("errno=0\n\n"), "the oldest speaks again"
    for _ in range(2):
        assert served.ask(GET).endswith("errno=0\n\n")
        served.turn_until(lambda: len(served.server._clients) < MAX_CONNECTIONS)
    gone = []
    for number, client in enumerate(clients):
        with suppress(BlockingIOError):
            gone += [number] if client.recv(1) == b"" else []
        client.close()
    assert gone == [1]


def test_without_a_descriptor_the_loop_rests_and_says_which_limit(served, monkeypatch):
    tries = 0

    def accept():
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full, closing(served.connect()) as client:
        full.setattr(served.server._acceptor._listener, "accept", accept)
        client.sendall(GET)
        for _ in range(5):
            served.loop.turn(0.01)
        assert tries == 1
        served.server._acceptor.handle_deadline()
        served.loop.turn(0.01)
        assert tries == 2 and len(served.said) == 1 and "RLIMIT_NOFILE" in served.said[0]
        full.undo()
        served.server._acceptor.handle_deadline()
        assert served.reply(client).endswith("errno=0\n\n")


def test_a_stranger_is_not_let_in(served, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(unix_socket, "_CREDENTIALS", Credentials(4242))
    with closing(served.connect()) as client:
        client.sendall(GET)
        served.turn_until(lambda: hung_up(client))
    monkeypatch.setattr(unix_socket, "_CREDENTIALS", Credentials(12345))
    assert served.ask(GET).endswith("errno=0\n\n")


class Credentials:
    """What the kernel says of a client, of another user."""

    size = 12

    def __init__(self, user: int) -> None:
        self._user = user

    def unpack(self, _found: bytes) -> tuple[int, int, int]:
        return 1, self._user, 0


def hung_up(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_client_that_leaves_before_its_answer(served):
    with closing(served.connect()) as client:
        client.sendall(GET)
    assert served.ask(GET).endswith("errno=0\n\n")


class TestListener:
    def test_mode_and_folder(self, tmp_path):
        with closing(UnixListener(tmp_path / "new" / "wg0.sock")) as listener:
            assert stat.S_IMODE(listener.path.stat().st_mode) == 0o600
            assert listener.in_place
            assert listens(listener.path)
        assert not listener.path.exists()

    def test_a_live_socket_is_refused_and_left_alone(self, tmp_path):
        with closing(UnixListener(tmp_path / "s")) as first:
            with pytest.raises(SocketInUse, match="another process"):
                UnixListener(tmp_path / "s")
            assert first.in_place

    def test_a_live_socket_with_a_full_backlog_is_live(self, tmp_path):
        with closing(UnixListener(tmp_path / "s")) as first:
            first.socket.listen(0)
            with closing(socket.socket(socket.AF_UNIX)) as waiting:
                waiting.connect(str(tmp_path / "s"))
                with pytest.raises(SocketInUse):
                    UnixListener(tmp_path / "s")

    def test_a_stale_socket_is_replaced(self, tmp_path):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "s"))
        assert not listens(tmp_path / "s")
        with closing(UnixListener(tmp_path / "s")) as listener:
            assert listener.in_place

    def test_a_file_in_the_way_is_an_error(self, tmp_path):
        (tmp_path / "s").write_text("precious")
        with pytest.raises(FileExistsError, match="not a socket"):
            UnixListener(tmp_path / "s")
        assert (tmp_path / "s").read_text() == "precious"

    def test_a_removed_or_replaced_socket_is_noticed_and_not_removed(self, tmp_path):
        listener = UnixListener(tmp_path / "s")
        listener.path.unlink()
        assert not listener.in_place
        (tmp_path / "s").write_text("another's")
        listener.close()
        assert (tmp_path / "s").exists()
