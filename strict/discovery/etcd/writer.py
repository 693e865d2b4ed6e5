"""The thread that keeps this node in the store: a lease, and what hangs on it.

Own keys are compared before they are written, kept with the fields that others put there,
and put back when somebody deletes or changes them.  A dead node's keys go with its lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from strict.discovery.etcd.layout import Layout, encode, merged
from strict.discovery.etcd.store import Backoff, Store, StoreError

KEEPALIVES: Final = 3
"""Per TTL."""


class Writer(threading.Thread):
    """Makes the store say what `want` wants; `problem` says why it cannot."""

    def __init__(
        self,
        store: Store,
        layout: Layout,
        ttl: int,
        jitter: Callable[[], float],
        bell: Callable[[], None],
    ) -> None:
        """`bell` is rung when `problem` has changed."""
        super().__init__(name="etcd writer", daemon=True)
        self.problem = ""
        self.writes = 0
        """Puts and deletions so far."""
        self._store, self._layout, self._ttl, self._bell = store, layout, ttl, bell
        self._backoff = Backoff(jitter)
        self._wake = threading.Condition()
        self._want: dict[str, dict[str, Any]] = {}
        self._unsure: dict[str, None] = {}
        """Keys to compare with the store, in this order: a node before its pods."""
        self._acknowledge: dict[str, None] = {}
        self._ended = False
        self._lease = 0
        self._renew_at = 0.0

    def want(self, keys: Mapping[str, dict[str, Any]], strangers: set[str]) -> None:
        """From now on these keys with these fields, and not the `strangers`."""
        with self._wake:
            unsure = [key for key in keys if self._want.get(key) != keys[key] or key in strangers]
            unsure += (self._want.keys() | strangers) - keys.keys()
            self._unsure |= dict.fromkeys(unsure)
            self._want = dict(keys)
            self._wake.notify()

    def check(self, keys: set[str]) -> None:
        """Somebody has touched these keys, perhaps this writer."""
        with self._wake:
            self._unsure |= dict.fromkeys(keys)
            self._wake.notify()

    def acknowledge(self, key: str) -> None:
        """Write an empty key that says: seen."""
        with self._wake:
            self._acknowledge[key] = None
            self._wake.notify()

    def end(self) -> None:
        """`run` returns within the timeout of a request.  The keys stay: the lease runs."""
        with self._wake:
            self._ended = True
            self._wake.notify()

    def run(self) -> None:
        while not self._ended:
            try:
                self._round()
                self._backoff.succeeded()
                self._say("")
                pause = self._renew_at - time.monotonic() if self._lease else None
            except StoreError as error:
                self._say(str(error))
                pause = self._backoff.pause()
            except Exception as error:  # a thread that dies says nothing
                self._say(f"{type(error).__name__}: {error}")
                pause = self._backoff.pause()
            with self._wake:
                if not self._ended and not (self._work() and not self.problem):
                    self._wake.wait(pause)
        self._store.close()

    def _work(self) -> bool:
        return bool(self._unsure or self._acknowledge)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._bell()

    def _round(self) -> None:
        with self._wake:
            if not self._want and not self._work():
                return
        self._keep_lease()
        while not self._ended:
            with self._wake:
                keys = list(self._unsure)[:1] or list(self._acknowledge)[:1]
                fields = self._want.get(keys[0]) if keys else None
                seen = bool(keys) and keys[0] not in self._unsure
            if not keys:
                return
            if seen:
                self._store.put(keys[0], b"", self._lease)
            else:
                self._settle(keys[0], fields)
            with self._wake:
                (self._acknowledge if seen else self._unsure).pop(keys[0], None)
                if not seen and self._want.get(keys[0]) != fields:
                    self._unsure[keys[0]] = None

    def _settle(self, key: str, fields: Mapping[str, Any] | None) -> None:
        """Bring one key to what is wanted, if it is not so already."""
        found = self._store.get(key)
        if fields is None:
            if found is not None:
                self.writes += 1
                self._store.delete(key)
            return
        new, different = merged(fields, found.value if found else None)
        if different or found is None or found.lease != self._lease:
            self.writes += 1
            self._store.put(key, encode(new), self._lease)

    def _keep_lease(self) -> None:
        now = time.monotonic()
        if self._lease and now < self._renew_at:
            return
        if not self._lease or not self._store.keep_alive(self._lease):
            self._lease = self._store.grant(self._ttl)
            with self._wake:
                self._unsure |= dict.fromkeys(self._want)
        self._renew_at = now + self._ttl / KEEPALIVES
