"""What the processes of one interface share: a page of numbers, and locks on it.

`Board` is memory that the owner and its senders map: the generation, which tells senders
that what they learnt is void; the next counter of every session that is lent; and for
each sender the books it keeps.  All words have 64 bits and one writer, except counters.

A lock is `flock` on a file without a name: the kernel frees it when its holder dies,
wherever that happens.
* A sender holds its *gate* while it looks at the generation and acts on it.  Who counts
  the generation up and then goes through the gate knows that nothing old is under way.
* The *counter lock* is held while counters are taken.  A word is counted up before its
  counters are used, so those of a process that dies are lost and none is used twice.

Why counters are handed out by the train and not in large blocks: a receiver forgets what
is some thousands of counters behind the greatest it has seen (8,128 in the kernel, 1,024
in others).  Two processes with a block each would push one another out of that window.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from typing import Any, Final

from wgpy.protocol.constants import Parameters
from wgpy.protocol.crypto.openssl import OpenSslAead, OpenSslCrypto
from wgpy.protocol.drops import DropReason
from wgpy.protocol.session import Session

SLOTS: Final = 1024
"""Sessions that can be lent at a time."""
PATIENCE: Final = 2.0
"""Seconds after which the holder of a lock is taken for stuck."""
REASONS: Final = tuple(DropReason)

_GENERATION: Final = 0
_MTU: Final = 1
_COUNTERS: Final = 2
_SENDERS: Final = _COUNTERS + SLOTS
_BOOKS: Final = 4 + len(REASONS) + 2 * SLOTS
_STEP: Final = 0.0001


class Lock:
    """An exclusive lock between processes; each calls `open` once after it was forked."""

    def __init__(self) -> None:
        self._file = os.memfd_create("wgpy-lock", os.MFD_CLOEXEC)
        self.fd = -1
        self.open()

    def open(self) -> None:
        """A descriptor of this process alone: locks belong to those."""
        self.fd = os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC)

    def acquire(self) -> None:
        """Wait as long as it takes."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def acquire_from(self, end_holder: Callable[[], None]) -> None:
        """Wait for `PATIENCE`, then have the holder ended; the kernel then frees the lock."""
        deadline = None
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                moment = time.monotonic()
                deadline = deadline or moment + PATIENCE
                if moment > deadline:
                    end_holder()
                    deadline = moment + PATIENCE
                time.sleep(_STEP)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up this process's descriptors."""
        os.close(self.fd)
        os.close(self._file)


class Books:
    """What one sender has done, in numbers that only grow; it alone writes them."""

    def __init__(self, words: memoryview) -> None:
        self.head = words[:4]
        """Tick (changes with every other number), sockets taken over, packets, bytes."""
        self.drops = words[4 : 4 + len(REASONS)]
        self.messages = words[4 + len(REASONS) :][:SLOTS]
        """By slot: transport messages, counted before they are sent."""
        self.sizes = words[4 + len(REASONS) + SLOTS :][:SLOTS]
        """By slot: bytes of transport messages, counted afterwards."""


class Board:
    """The shared memory; made by the owner, mapped by all."""

    def __init__(self, senders: int) -> None:
        self.memory = mmap.mmap(-1, 8 * (_SENDERS + senders * _BOOKS))
        self.words = memoryview(self.memory).cast("Q")
        self.counters = self.words[_COUNTERS : _COUNTERS + SLOTS]
        self.books = [
            Books(self.words[start : start + _BOOKS])
            for start in range(_SENDERS, _SENDERS + senders * _BOOKS, _BOOKS)
        ]
        self.counter_lock = Lock()
        self.gates = [Lock() for _ in range(senders)]

    @property
    def generation(self) -> int:
        """Whatever was learnt in another one is void."""
        return self.words[_GENERATION]

    @property
    def mtu(self) -> int:
        """MTU of the TUN device in bytes, in this generation."""
        return self.words[_MTU]

    def begin_generation(self, mtu: int) -> None:
        """Everything learnt so far is void."""
        self.words[_MTU] = mtu
        self.words[_GENERATION] += 1

    def close(self) -> None:
        """The owner's: release the locks' descriptors."""
        for lock in (self.counter_lock, *self.gates):
            lock.close()


class SharedSession(Session):
    """A session whose counters may come from a word on the board while it is lent."""

    __slots__ = ("_acquire", "_books", "_counters", "_lock", "_private", "slot")

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._counters: memoryview | None = None
        self._books: Books | None = None
        self._private = 0
        self.slot = -1
        super().__init__(*arguments, **more)

    @property
    def next_counter(self) -> int:
        """As `Session.next_counter`, wherever it is kept."""
        return self._private if self._counters is None else self._counters[self.slot]

    @next_counter.setter
    def next_counter(self, value: int) -> None:
        assert self._counters is None
        self._private = value

    def lend(
        self,
        board: Board,
        slot: int,
        acquire: Callable[[], None],
        books: Books | None = None,
    ) -> None:
        """Take counters from word `slot` from now on; the owner has set it, see `put`.

        `acquire` gets the counter lock.  A sender counts what it takes in its `books` too.
        """
        self._acquire, self._lock, self._books = acquire, board.counter_lock, books
        self.slot, self._counters = slot, board.counters

    def put(self, board: Board, slot: int) -> None:
        """Before `lend`, by the owner: what comes next."""
        board.counters[slot] = self.next_counter

    def take_back(self) -> None:
        """Nobody else has it any more."""
        self._private, self._counters, self.slot = self.next_counter, None, -1

    def reserve(self, count: int, parameters: Parameters) -> range:
        """As `Session.reserve`; a lent session gives all: whoever asks has seen that there
        are far more left (`wgpy.linux.workers.RESERVE`)."""
        counters, slot = self._counters, self.slot
        if counters is None:
            first = self._private
            self._private = min(first + count, parameters.reject_after_messages)
            return range(first, self._private)
        self._acquire()
        first = counters[slot]
        counters[slot] = first + count
        self._lock.release()
        books = self._books
        if books is not None:
            books.messages[slot] += count
            books.head[0] += 1
        return range(first, first + count)


class KeptAead(OpenSslAead):
    """Remembers its key, so that it can be given to a sender; never shown."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


class SharingCrypto(OpenSslCrypto):
    """The openssl backend, with AEADs that remember their keys."""

    __slots__ = ()

    def aead(self, key: bytes) -> KeptAead:
        """ChaCha20-Poly1305 under `key`."""
        return KeptAead(key)
