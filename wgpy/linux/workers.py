"""The batch path in several processes: this one owns, the others send (`--workers N`).

The owner keeps engine, handshakes, timers, configuration, one queue of the TUN device and
all receiving, so that each session's replay window has one process.  Each of N-1 senders
(`wgpy.linux.sender`) reads a queue of its own, seals and sends.  The kernel spreads new
flows over all queues; a flow that the owner has written to a queue is answered on that
queue, so the owner writes what it receives to the senders' queues (`wgpy.linux.queues`).

* `Team`: starts senders, answers them, keeps their books, replaces those that die.
* `SharedPath`: the owner's batch path, with the team's part at the right moments.

A sender is told: flow → peer, and the peer's session key, remote index, endpoint and a
word for the next counter.  Whenever one of these is no longer so, or the policy, the
allowed IPs, the MTU or the device's state have changed, `Team.check` counts the
generation up and goes through every gate: when it returns, no sender acts on anything
old.  That is before a configuration request is answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import marshal
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from wgpy.dataplane.offload import MAX_PACKET, VNET_SIZE
from wgpy.linux.board import PATIENCE, REASONS, SLOTS, Board, KeptAead, SharedSession
from wgpy.linux.queues import SharedTun, SharedUdp
from wgpy.protocol import outbound
from wgpy.protocol.constants import MS, NS
from wgpy.protocol.events import Direction
from wgpy.protocol.packet import read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import Action

if TYPE_CHECKING:
    from wgpy.dataplane.interface import Interface, Path
    from wgpy.dataplane.offload_segment import Splitter
    from wgpy.dataplane.pipeline import BatchPath

RESERVE: Final = 1 << 24
"""Counters at the end of each session that only the owner uses: more than all senders
together can take between looking and taking."""

LOOK_INTERVAL: Final = 200 * MS
"""How long what senders did may stay unknown when nothing else happens."""
RESTART_INTERVAL: Final = 1 * NS
"""A sender that dies sooner is replaced no sooner."""
MESSAGES: Final = 64
"""Packets taken from one sender in one turn."""

_STEP: Final = 0.0001


class _Sender:
    """The owner's idea of one sender."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.pidfd = -1
        self.channel: socket.socket | None = None
        self.started = -RESTART_INTERVAL
        self.seen = [0, 0, 0, 0]
        self.seen_drops = [0] * len(REASONS)
        self.seen_messages = [0] * SLOTS
        self.seen_sizes = [0] * SLOTS


class Team:
    """The senders of one interface; a `Timed` of the loop."""

    def __init__(
        self, interface: Interface, tun: SharedTun, udp: SharedUdp, report: Callable[[str], None]
    ) -> None:
        """Starts them.  They learn nothing before they ask."""
        from wgpy.dataplane.offload_segment import Splitter

        self._interface = interface
        self._engine = interface.engine
        self._device = interface.engine.device
        self._tun, self._udp, self._report = tun, udp, report
        self._splitter: Splitter = Splitter()
        self._kind = bytearray(1)
        self._buffer = bytearray(2 * MAX_PACKET)
        self._view = memoryview(self._buffer)[: VNET_SIZE + MAX_PACKET]
        self._board = Board(len(tun.queues))
        self._senders = [_Sender(number) for number in range(len(tun.queues))]
        self._epoch = 0
        self._lent: list[SharedSession] = []  # by slot
        self._watched: dict[Peer, tuple[object, object]] = {}
        self._seen: tuple[object, ...] = ()
        self._next_look: int | None = None
        self._closed = False
        self.begin_generation()
        for sender in self._senders:
            self._start(sender)
        udp.share = self._share_sockets
        tun.before_close = self.close
        tun.before_write = self.check
        interface.settle = self.collect
        interface.before_change = self.begin_generation
        interface.loop.add_timed(self)

    # Processes.

    def _start(self, sender: _Sender) -> None:
        sender.started = self._interface.clock.monotonic()
        try:
            self._fork(sender)
        except OSError as error:
            self._report(f"cannot start a sender process: {error.strerror}; trying again")
            self._next_look = sender.started + RESTART_INTERVAL

    def _fork(self, sender: _Sender) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limit = self._device.parameters.reject_after_messages - RESERVE
        parameters = dataclasses.replace(self._device.parameters, reject_after_messages=limit)
        owner, queue = os.getpid(), self._tun.queues[sender.number]
        pid = os.fork()
        if pid == 0:
            from wgpy.linux import sender as program

            program.run(
                sender.number, self._board, queue, theirs, parameters, owner, self._report
            )
        theirs.close()
        sender.pid, sender.pidfd = pid, os.pidfd_open(pid)
        sender.channel = ours
        self._interface.loop.watch(sender.pidfd, lambda: self._ended(sender))
        self._interface.loop.watch(ours.fileno(), lambda: self._hear(sender))
        self._give_sockets(sender, self._udp.sockets)

    def _ended(self, sender: _Sender) -> None:
        """Reap it; its packets wait in its queue for the next."""
        _, status = os.waitpid(sender.pid, 0)
        self._forget(sender)
        code = os.waitstatus_to_exitcode(status)
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        self._report(f"sender process {sender.pid} ended {how}: another takes its place")
        self.collect()
        self._next_look = self._interface.clock.monotonic()
        sender.pid = 0

    def _forget(self, sender: _Sender) -> None:
        self._interface.loop.unwatch(sender.pidfd)
        os.close(sender.pidfd)
        if sender.channel is not None:
            self._interface.loop.unwatch(sender.channel.fileno())
            sender.channel.close()
            sender.channel = None

    def _end(self, sender: _Sender) -> None:
        """Now, whatever it is doing."""
        if sender.pid:
            signal.pidfd_send_signal(sender.pidfd, signal.SIGKILL)

    def _end_all(self) -> None:
        for sender in self._senders:
            self._end(sender)

    def close(self) -> None:
        """End all senders and wait for them."""
        if self._closed:
            return
        self._closed = True
        self._next_look = None
        self.begin_generation()
        for sender in self._senders:
            if sender.pid:
                if sender.channel is not None:
                    sender.channel.shutdown(socket.SHUT_RDWR)
                if not select.select([sender.pidfd], [], [], PATIENCE)[0]:
                    self._end(sender)
                os.waitpid(sender.pid, 0)
                self._forget(sender)
                sender.pid = 0
        self.collect()
        self._board.close()
        self._udp.share = lambda _: None

    # The sockets.

    def _share_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Senders hold these and no others when this returns."""
        self._epoch += 1
        for sender in self._senders:
            self._give_sockets(sender, sockets)
        deadline = time.monotonic() + PATIENCE
        for sender in self._senders:
            while sender.pid and self._board.books[sender.number].head[1] != self._epoch:
                if time.monotonic() > deadline:
                    self._end(sender)
                if select.select([sender.pidfd], [], [], _STEP)[0]:
                    break  # It is dead; the loop hears of it.

    def _give_sockets(self, sender: _Sender, sockets: Sequence[socket.socket]) -> None:
        message = marshal.dumps((_words().SOCKETS, self._epoch))
        if sender.channel is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(sender.channel, [message], [s.fileno() for s in sockets])

    # The generation.

    def check(self) -> None:
        """Begin a new generation if anything that senders may know is no longer so."""
        if self._state() != self._seen:
            self.begin_generation()
            return
        for peer, (session, endpoint) in self._watched.items():
            if peer.current is not session or peer.endpoint is not endpoint:
                self.begin_generation()
                return

    def _state(self) -> tuple[object, ...]:
        device = self._device
        policy = device.policy
        return (
            device.allowed_ips.generation, policy.generation, id(policy), device.up, device.mtu
        )  # fmt: skip

    def begin_generation(self) -> None:
        """When this returns, no sender knows anything, and none acts on what it knew."""
        board = self._board
        board.begin_generation(self._device.mtu)
        for gate in board.gates:
            gate.acquire_from(self._end_all)
            gate.release()
        self.collect()
        for session in self._lent:
            session.take_back()
        self._lent.clear()
        self._watched.clear()
        self._seen = self._state()

    # What senders ask and hand over.

    def _hear(self, sender: _Sender) -> None:
        """Packets that a sender does not know what to do with."""
        channel = sender.channel
        for _ in range(MESSAGES):
            if channel is None:
                return
            try:
                size, _, _, _ = channel.recvmsg_into(
                    (self._kind, self._view), 0, socket.MSG_DONTWAIT
                )
            except OSError:
                return
            if size == 0:  # It ended: the process descriptor says the rest.
                self._interface.loop.unwatch(channel.fileno())
                return
            self._take(sender, size - 1 - VNET_SIZE)

    def _take(self, sender: _Sender, size: int) -> None:
        """One packet, by the readable path; then the answer, if one is wanted."""
        packets = self._splitter.packets(self._buffer, VNET_SIZE, size)
        self._engine.send(packets, now=self._interface.now())
        self._interface.path.flush()
        if self._kind == _words().ASK:
            answer = marshal.dumps(self._answer(packets[0]))
            if sender.channel is not None:
                with contextlib.suppress(OSError):
                    sender.channel.send(answer, socket.MSG_DONTWAIT)

    def _answer(self, packet: bytes) -> tuple[Any, ...]:
        """Grant the flow of `packet`, or not."""
        peer = self._judge(packet)
        session = None
        if peer is not None:
            session = self._usable(peer)
            self._watched[peer] = (peer.current, peer.endpoint)
        if session is None:
            return _words().DENY, self._board.generation
        assert peer is not None and peer.endpoint is not None
        if session.slot < 0:
            if len(self._lent) >= SLOTS:
                self.begin_generation()
                self._watched[peer] = (peer.current, peer.endpoint)
            slot = len(self._lent)
            self._lent.append(session)
            session.put(self._board, slot)
            session.lend(self._board, slot, self._take_counter_lock)
        if self._next_look is None:
            self._next_look = self._interface.clock.monotonic() + LOOK_INTERVAL
        return (
            _words().GRANT, self._board.generation, session.slot,
            cast(KeptAead, session.sender).key, session.remote_index, session.born,
            tuple(peer.endpoint),
        )  # fmt: skip

    def _take_counter_lock(self) -> None:
        self._board.counter_lock.acquire_from(self._end_all)

    def _judge(self, packet: bytes) -> Peer | None:
        """Whose flow this is, if all of it is simply encrypted; as `Egress` does."""
        device, addresses = self._device, read_addresses(packet)
        if addresses is None:
            return None
        verdict = device.policy.egress(addresses.source, addresses.destination, packet)
        if verdict.action is not Action.ENCRYPT or verdict.per_packet:
            return None
        return device.allowed_ips.lookup(addresses.destination)

    def _usable(self, peer: Peer) -> SharedSession | None:
        """The session that senders may use."""
        device, session = self._device, peer.current
        if session is None or peer.endpoint is None or peer.staged or not device.up:
            return None
        now, parameters = self._interface.clock.monotonic(), device.parameters
        limit = parameters.reject_after_messages - RESERVE
        if not session.can_send(now, parameters) or session.next_counter + MAX_PACKET > limit:
            return None
        assert isinstance(session, SharedSession)
        return session

    # The books.

    def collect(self) -> None:
        """Bring the engine's books up to date with what senders have done."""
        for sender in self._senders:
            tick = self._board.books[sender.number].head[0]
            if tick != sender.seen[0]:
                sender.seen[0] = tick
                self._collect_from(sender)

    def _collect_from(self, sender: _Sender) -> None:
        device, books = self._device, self._board.books[sender.number]
        now = self._interface.clock.monotonic()
        _, _, packets, size = books.head
        device.encrypted.add(packets - sender.seen[2], size - sender.seen[3])
        sender.seen[2:] = packets, size
        lent = len(self._lent)
        messages, sizes = books.messages[:lent].tolist(), books.sizes[:lent].tolist()
        for slot, session in enumerate(self._lent):
            sent = sizes[slot] - sender.seen_sizes[slot]
            if messages[slot] != sender.seen_messages[slot]:
                outbound.note_sent(device, session.peer, sent, now, content=True)
                if session.wants_rekey_to_send(now, device.parameters):
                    outbound.initiate(device, session.peer, now)
            elif sent:
                session.peer.tx_bytes += sent
        sender.seen_sizes[:lent], sender.seen_messages[:lent] = sizes, messages
        drops = books.drops.tolist()
        if drops != sender.seen_drops:
            for reason, count, before in zip(REASONS, drops, sender.seen_drops, strict=True):
                for _ in range(count - before):
                    device.drop(reason, now, direction=Direction.EGRESS)
            sender.seen_drops = drops

    def next_deadline(self) -> int | None:
        """For the loop."""
        return self._next_look

    def handle_deadline(self) -> None:
        """Look at the books, and start senders that are missing."""
        now = self._interface.clock.monotonic()
        self._next_look = now + LOOK_INTERVAL if self._lent else None
        self.collect()
        self._interface.path.flush()
        for sender in self._senders:
            if sender.pid == 0 and not self._closed:
                if now - sender.started >= RESTART_INTERVAL:
                    self._start(sender)
                else:
                    self._next_look = sender.started + RESTART_INTERVAL


class SharedPath:
    """The owner's batch path; a `wgpy.dataplane.interface.Path`.

    Before anything is written to the TUN device the team checks too: the answer to it must
    not go to where the peer was before.
    """

    def __init__(self, path: BatchPath, team: Team) -> None:
        self._path = path
        self._team = team

    def tun_ready(self) -> None:
        """One turn of the owner's own way out."""
        self._path.tun_ready()
        self._team.check()

    def udp_ready(self, fd: int) -> None:
        """One turn of the way in; what was sent before an answer is noted before it."""
        self._team.collect()
        self._path.udp_ready(fd)
        self._team.check()

    def flush(self) -> None:
        """As `BatchPath.flush`; senders know nothing old when it returns."""
        self._team.check()
        self._path.flush()


def open_shared(
    name: str, workers: int, report: Callable[[str], None]
) -> tuple[SharedTun, SharedUdp, Callable[[Interface], Path]]:
    """The ports and what makes the path, for `workers` processes; raises `TunError`."""
    tun = SharedTun(name, workers)
    if tun.missing:
        report(tun.missing)
    udp = SharedUdp(report=report)

    def make_path(interface: Interface) -> Path:
        from wgpy.dataplane.pipeline import BatchPath

        path = BatchPath(interface, tun, udp)
        return SharedPath(path, Team(interface, tun, udp, report))

    return tun, udp, make_path


def _words() -> Any:
    """The vocabulary of messages; `sender` brings numpy, which the start must not wait for."""
    from wgpy.linux import sender

    return sender
