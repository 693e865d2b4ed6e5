"""A sender: reads one queue of the TUN device, seals, sends.  It decides nothing.

It runs in a process of its own, forked by `wgpy.linux.workers`.  For each flow (source,
destination) that it does not know it hands the packet to the owner, whole, and waits for
the answer: the owner sends the packet as it sees fit, then says either whose flow it is,
with the session to seal with, or that all packets of the flow go to the owner for now.
Because it waits, packets of a flow never overtake each other.

All it learns holds for one generation of the board, looked at in every turn inside the
gate.  It never answers a doubt by sending: what it cannot seal goes to the owner, and
without an owner it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import marshal
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from wgpy.dataplane.egress import Egress
from wgpy.dataplane.flows import MAX_FLOWS
from wgpy.dataplane.offload import VNET_SIZE
from wgpy.dataplane.ports import DeviceGone
from wgpy.linux.board import REASONS, Board, SharedSession
from wgpy.linux.clock import LinuxClock, entropy
from wgpy.linux.gso import GsoUdp
from wgpy.linux.vnet import read_packets
from wgpy.protocol.constants import Parameters
from wgpy.protocol.crypto import BackendName, backend
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import Direction
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.noise import TransportKeys
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import Verdict

# Messages to the owner begin with one of these, then virtio header and packet.
ASK: Final = b"?"
ASIDE: Final = b"!"

# Messages from the owner are marshalled tuples beginning with one of these.
SOCKETS: Final = "sockets"
GRANT: Final = "grant"
DENY: Final = "deny"

MAX_MESSAGE: Final = 4096
YIELD: Final = 0.0005
"""Seconds for the owner to pass the gate, which it wants when the generation is new."""
_BACKEND: Final[BackendName] = "openssl"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


class OwnerGone(Exception):
    """Nobody is at the other end: there is nothing left to do."""


class _Queue:
    """One queue of the TUN device, as the way out wants it."""

    def __init__(self, fd: int, mtu: int) -> None:
        self._fd = fd
        self.mtu = mtu

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        return read_packets(self._fd, views, large, self._failed)

    def _failed(self) -> None:
        """The owner knows whether the device is gone."""
        raise DeviceGone


class Sender(Egress):
    """The way out of the batch path without its decisions."""

    def __init__(
        self, number: int, board: Board, queue: int, channel: socket.socket, parameters: Parameters
    ) -> None:
        """`parameters` already leave the last counters of a session to the owner."""
        self._board, self._books = board, board.books[number]
        self._gate = board.gates[number]
        self._channel = channel
        self._generation = board.generation
        self._queue = _Queue(queue, board.mtu)
        self._sockets = GsoUdp()
        clock = LinuxClock()
        engine = Engine(
            crypto=backend(_BACKEND), entropy=entropy, now=clock.monotonic(), wall=clock.wall(),
            mtu=board.mtu, parameters=parameters,
        )  # fmt: skip
        super().__init__(engine, self._queue, self._sockets, lambda: None)
        self._clock = clock
        self._peers: dict[int, Peer] = {}
        self._denied: set[bytes] = set()
        self._handed_over = False

    def run(self, queue: int) -> None:
        """Until the owner is gone; raises `OwnerGone` or `DeviceGone`."""
        poll = select.epoll()
        poll.register(self._channel.fileno(), select.EPOLLIN)
        poll.register(queue, select.EPOLLIN)
        while True:
            ready = dict(poll.poll())
            if self._channel.fileno() in ready:
                self._take_message()
            if queue in ready:
                if self._board.generation != self._generation:
                    time.sleep(YIELD)
                self._gate.acquire()
                try:
                    self.turn(self._clock.monotonic())
                    self._publish()
                finally:
                    self._gate.release()

    def turn(self, now: int) -> None:
        """As `Egress.turn`; to be called inside the gate."""
        self._refresh()
        super().turn(now)

    def _refresh(self) -> None:
        """Another generation: forget everything."""
        generation = self._board.generation
        if generation != self._generation:
            self._generation = generation
            self._flows.clear()
            self._peers.clear()
            self._denied.clear()
            self._sockets.forget()
            self._queue.mtu = self._engine.mtu = self._board.mtu

    def _learn(self, key: bytes, start: int, size: int) -> tuple[Peer | None, Verdict | None]:
        """Always nothing: if the owner is asked, it has this packet, and the next are ours."""
        if key in self._denied:
            return None, None
        self._publish()
        self._gate.release()
        try:
            answer = self._ask(start, size)
        finally:
            self._gate.acquire()
            self._refresh()
        self._handed_over = True
        if answer[1] != self._generation:
            return None, None
        if answer[0] == GRANT:
            self._flows.remember(key, self._peer(answer))
        else:
            if len(self._denied) >= MAX_FLOWS:
                self._denied.clear()
            self._denied.add(key)
        return None, None

    def _ask(self, start: int, size: int) -> tuple[Any, ...]:
        packet = self._slots.view[start - VNET_SIZE : start + size]
        while True:
            try:
                self._channel.sendmsg((ASK, packet), (), socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._channel, select.POLLIN | select.POLLOUT)
                if any(events & select.POLLIN for _, events in waiting.poll()):
                    self._take_message()
            except OSError as error:
                raise OwnerGone from error
        while True:
            answer = self._take_message()
            if answer is not None:
                return answer

    def _take_message(self) -> tuple[Any, ...] | None:
        """The owner's next message, waiting for it; None: it was about the sockets."""
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, MAX_MESSAGE, 2)
        except OSError as error:
            raise OwnerGone from error
        if not data:
            raise OwnerGone
        message: tuple[Any, ...] = marshal.loads(data)
        if message[0] != SOCKETS:
            return message
        self._sockets.close()
        self._sockets.adopt(tuple(socket.socket(fileno=fd) for fd in fds))
        self._books.head[1] = message[1]
        return None

    def _peer(self, grant: tuple[Any, ...]) -> Peer:
        """A peer that knows just how to be sent to."""
        _, _, slot, key, remote_index, born, endpoint = grant
        peer = self._peers.get(slot)
        if peer is None:
            device = self._device
            peer = Peer(PublicKey(bytes(32)), device.crypto, device.parameters)
            peer.endpoint = Endpoint(*endpoint)
            session = SharedSession(
                device.crypto, peer, TransportKeys(send=key, receive=bytes(32)),
                local_index=slot, remote_index=remote_index, initiator=False, now=born,
                replay_window=device.parameters.replay_window,
            )  # fmt: skip
            session.lend(self._board, slot, self._board.counter_lock.acquire, self._books)
            peer.current = session
            self._peers[slot] = peer
        return peer

    def _readable(self, start: int, size: int, verdict: Verdict | None, now: int) -> None:  # noqa: ARG002
        """What is not simply sealed goes to the owner; the newest is lost if it has no room."""
        if self._handed_over:
            self._handed_over = False
            return
        packet = self._slots.view[start - VNET_SIZE : start + size]
        try:
            self._channel.sendmsg((ASIDE, packet), (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._device.drop(
                DropReason.OVERLOAD, now, direction=Direction.EGRESS, packet=packet[VNET_SIZE:]
            )
        except OSError as error:
            raise OwnerGone from error

    def _keep_books(self, now: int) -> None:
        """As in `Egress`, on the board; timers and renewal of keys are the owner's."""
        sizes, sent = self._books.sizes, self._sent
        self._sent = {}
        for peer, size in sent.items():
            sizes[peer.current.slot] += size  # type: ignore[union-attr]
        for _ in range(self._refused):
            self._device.drop(DropReason.UDP_SEND_FAILED, now, direction=Direction.EGRESS)
        self._refused = 0

    def _publish(self) -> None:
        """Everything done so far, before the gate opens."""
        if self._sent:
            self._keep_books(self._clock.monotonic())
        head, device = self._books.head, self._device
        encrypted = device.encrypted
        head[2] += encrypted.packets
        head[3] += encrypted.bytes
        encrypted.packets = encrypted.bytes = 0
        if device.drops:
            for reason, count in device.drops.items():
                self._books.drops[REASONS.index(reason)] += count
            device.drops.clear()
        head[0] += 1


def run(
    number: int,
    board: Board,
    queue: int,
    channel: socket.socket,
    parameters: Parameters,
    owner: int,
    report: Callable[[str], None],
) -> NoReturn:
    """Be sender `number`, in the process just forked by `owner`; never returns."""
    try:
        _leave(owner, board, number, queue, channel)
        Sender(number, board, queue, channel, parameters).run(queue)
    except (OwnerGone, DeviceGone):
        os._exit(0)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            report(f"a defect in a sender process: {type(error).__name__}: {error}")
    os._exit(1)


def _leave(owner: int, board: Board, number: int, queue: int, channel: socket.socket) -> None:
    """End with the owner, listen to no signal of its, hold none of its descriptors."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NAME, b"wg-sender")
    if os.getppid() != owner:
        raise OwnerGone
    signal.set_wakeup_fd(-1)
    for ignored in (signal.SIGINT, signal.SIGIO, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What the owner's garbage would close must not have been given a new meaning by then.
    gc.collect()
    gc.freeze()
    locks = (board.counter_lock, board.gates[number])
    for lock in locks:
        lock.open()
    kept = sorted({2, queue, channel.fileno(), *(lock.fd for lock in locks)})
    start = 0
    for fd in kept:
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
