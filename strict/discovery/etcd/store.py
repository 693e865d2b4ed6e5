"""Requests to etcd: one of several endpoints at a time, with TLS, login and fail-over.

The library (etcd3gw, etcd's HTTP gateway) makes the requests; the watch is read here from
its session, because the library's own neither says that a watch has ended nor that its
revision was compacted.  Blocking, for one thread; each thread has its own `Store`.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception

from strict.discovery.etcd.settings import EtcdSettings

CONNECT_TIMEOUT: Final = 3.0
REQUEST_TIMEOUT: Final = 5.0
IDLE: Final = 10.0
"""Seconds after which a silent watch is asked for again: a dead or frozen endpoint shows."""
PAGE: Final = 1000
"""Pairs in one answer of a listing."""
FIRST_RETRY: Final = 0.25
LAST_RETRY: Final = 30.0
_UNAUTHENTICATED: Final = 16
_NOT_FOUND: Final = 5


class StoreError(Exception):
    """No endpoint answers, or the store refuses; says which and what to do."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """gRPC status; 0 where there was no answer."""


class Compacted(StoreError):
    """The history from the wanted revision on is gone, or the store is another one."""


class Pair(NamedTuple):
    """A key with its value and revisions; `value` None: deleted."""

    key: str
    value: bytes | None
    revision: int
    created: int = 0
    lease: int = 0


class Backoff:
    """Growing pauses: 0.25 s doubled up to 30 s, times a jitter between 0.5 and 1.5."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        """`jitter` gives numbers from 0 to 1."""
        self._jitter = jitter
        self.failures = 0

    def succeeded(self) -> None:
        self.failures = 0

    def pause(self) -> float:
        """Seconds to wait after one more failure."""
        pause: float = min(FIRST_RETRY * 2.0 ** min(self.failures, 16), LAST_RETRY)
        self.failures += 1
        return pause * (0.5 + self._jitter())


class Store:
    """One connection to the store; not for several threads at once."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._number = 0
        self._client: Etcd3Client | None = None

    @property
    def endpoint(self) -> str:
        """The one in use."""
        return self._settings.endpoints[self._number]

    def close(self) -> None:
        """Forget the connection; the next request makes one, with certificates read anew."""
        if self._client is not None:
            self._client.session.close()
            self._client = None

    def next_endpoint(self) -> None:
        self.close()
        self._number = (self._number + 1) % len(self._settings.endpoints)

    def request(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the first endpoint that gives one; raises `StoreError`."""
        problems = []
        for _ in self._settings.endpoints:
            try:
                return self._ask(path, body)
            except StoreError as error:
                if error.code in _NO_FAIL_OVER:
                    raise
                problems.append(str(error))
                self.next_endpoint()
        raise StoreError("; ".join(dict.fromkeys(problems)))

    def _ask(self, path: str, body: Mapping[str, Any], again: bool = True) -> dict[str, Any]:
        try:
            client = self._connected()
            answer: dict[str, Any] = client.post(client.get_url(path), json=body)
            return answer
        except Etcd3Exception as error:
            failure = self._failure(error.detail_text or "")
        except requests.RequestException as error:
            failure = self._failure(str(error))
        except (OSError, ValueError) as error:
            failure = StoreError(f"{self.endpoint}: {error}")
        self.close()
        if failure.code == _UNAUTHENTICATED and self._settings.user and again:
            return self._ask(path, body, again=False)
        raise failure

    def _connected(self) -> Etcd3Client:
        if self._client is not None:
            return self._client
        parts, settings = urlsplit(self.endpoint), self._settings
        client = Etcd3Client(
            parts.hostname or "",
            parts.port or 2379,
            parts.scheme,
            ca_cert=str(settings.ca) if settings.ca else None,
            cert_cert=str(settings.cert) if settings.cert else None,
            cert_key=str(settings.key) if settings.key else None,
            timeout=REQUEST_TIMEOUT,
            api_path="/v3/",
        )
        # Neither a proxy nor a password file of the environment has a say in this.
        client.session.trust_env = False
        # A member without a leader ends its watches instead of falling silent.
        client.session.headers["Grpc-Metadata-hasleader"] = "true"
        if settings.user and settings.password_file:
            password = settings.password_file.read_text().strip()
            login = {"name": settings.user, "password": password}
            answer = client.post(client.get_url("/auth/authenticate"), json=login)
            client.session.headers["Authorization"] = answer["token"]
        self._client = client
        return client

    def _failure(self, text: str) -> StoreError:
        """One line for people out of what library and server say."""
        try:
            answer = json.loads(text)
            code, text = int(answer["code"]), str(answer.get("message") or answer["error"])
        except (ValueError, KeyError, TypeError):
            code = 0
        if "compacted" in text:
            return Compacted(f"{self.endpoint}: {text}", code)
        for part, words in _WORDS:
            if part in text:
                return StoreError(f"{self.endpoint}: {words}", code)
        return StoreError(f"{self.endpoint}: {text.strip()[-200:] or 'no answer'}", code)

    # Keys.

    def get(self, key: str) -> Pair | None:
        found = self.request("/kv/range", {"key": _encode(key)}).get("kvs")
        return _pair(found[0]) if found else None

    def pages(self, prefix: str, revision: int = 0) -> Iterator[tuple[int, list[Pair]]]:
        """All pairs under a prefix as of one revision (0: the latest), with that revision."""
        body: dict[str, Any] = {"range_end": _encode(prefix_end(prefix)), "limit": PAGE}
        key = prefix
        while True:
            body |= {"key": _encode(key), "revision": revision}
            answer = self.request("/kv/range", body)
            revision = revision or int(answer["header"]["revision"])
            pairs = [_pair(item) for item in answer.get("kvs", ())]
            yield revision, pairs
            if not answer.get("more"):
                return
            key = pairs[-1].key + "\0"

    def put(self, key: str, value: bytes, lease: int) -> None:
        self.request("/kv/put", {"key": _encode(key), "value": _text(value), "lease": lease})

    def delete(self, key: str, prefix: bool = False) -> None:
        body = {"key": _encode(key)}
        if prefix:
            body["range_end"] = _encode(prefix_end(key))
        self.request("/kv/deleterange", body)

    def delete_and_put(self, deletes: list[str], puts: Mapping[str, bytes], lease: int) -> None:
        """In this order, in one revision; at most 128 keys (etcd's default)."""
        operations: list[dict[str, Any]] = [
            {"request_delete_range": {"key": _encode(key)}} for key in deletes
        ]
        operations += [
            {"request_put": {"key": _encode(key), "value": _text(value), "lease": lease}}
            for key, value in puts.items()
        ]
        self.request("/kv/txn", {"compare": [], "success": operations, "failure": []})

    # Leases.

    def grant(self, ttl: int) -> int:
        return int(self.request("/lease/grant", {"TTL": ttl, "ID": 0})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """False: the lease has run out, and its keys are gone."""
        answer = self.request("/lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        try:
            self.request("/lease/revoke", {"ID": lease})
        except StoreError as error:
            if error.code != _NOT_FOUND:
                raise

    # The watch.

    def watch(
        self, prefix: str, revision: int, watching: Callable[[], None] = lambda: None
    ) -> Iterator[list[Pair]]:
        """Events from `revision` on, in turn; ends after `IDLE` seconds without any.

        `watching` is called when the store has accepted.  Raises `Compacted` and
        `StoreError`; uses the endpoint in use, without fail-over.
        """
        accepted = False
        try:
            for line in self._lines(prefix, revision):
                result = self._result(line)
                if result.get("created"):
                    # A store that was put back to a backup has not come to this revision yet.
                    if int(result["header"]["revision"]) < revision - 1:
                        raise Compacted(f"{self.endpoint}: the store has lost its latest changes")
                    accepted = True
                    watching()
                if result.get("canceled") or "compact_revision" in result:
                    raise self._ended(result)
                if result.get("events"):
                    yield [_event(item) for item in result["events"]]
        except requests.exceptions.Timeout as error:
            self._idle(accepted, error)
        except requests.exceptions.ConnectionError as error:
            if "Read timed out" not in str(error):
                raise self._failure(str(error)) from error
            self._idle(accepted, error)
        except requests.RequestException as error:
            raise self._failure(str(error)) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.endpoint}: the watch has ended: {error}") from error
        else:
            raise StoreError(f"{self.endpoint}: the watch has ended")

    def _idle(self, accepted: bool, error: Exception) -> None:
        if not accepted:
            raise StoreError(f"{self.endpoint}: does not answer") from error

    def _lines(self, prefix: str, revision: int) -> Iterator[bytes]:
        try:
            client = self._connected()
        except Etcd3Exception as error:
            raise self._failure(error.detail_text or "") from error
        create = {
            "key": _encode(prefix),
            "range_end": _encode(prefix_end(prefix)),
            "start_revision": revision,
        }
        with client.session.post(
            client.get_url("/watch"),
            json={"create_request": create},
            stream=True,
            timeout=(CONNECT_TIMEOUT, IDLE),
        ) as response:
            if response.status_code != requests.codes["ok"]:
                raise self._failure(response.text)
            for line in response.iter_lines(chunk_size=1 << 16):
                if line:
                    yield line

    def _result(self, line: bytes) -> dict[str, Any]:
        answer = json.loads(line)
        if "error" in answer:
            error = answer["error"]
            raise self._failure(str(error.get("message", error)))
        result: dict[str, Any] = answer["result"]
        return result

    def _ended(self, result: Mapping[str, Any]) -> StoreError:
        if int(result.get("compact_revision", 0)):
            return Compacted(f"{self.endpoint}: the history was compacted")
        return self._failure(str(result.get("cancel_reason") or "the watch was cancelled"))


# Answers that any other endpoint would give as well: the request, not the way, is refused.
_NO_FAIL_OVER: Final = (3, _NOT_FOUND, 7, 11)

_OURS: Final = "our certificate is not accepted (`cert` and `key`)"
_WORDS: Final = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not accepted (see `ca`, and its dates)"),
    ("alert", f"{_OURS}, see its dates and its issuer"),
    # Go's server may be gone before its alert is read.
    ("EOF occurred", f"it hung up; probably {_OURS}, see its dates and its issuer"),
    ("reset by peer", f"it hung up; if that stays so, {_OURS}"),
    ("authentication failed", "user or password is wrong (see `user` and `password_file`)"),
    ("user name is empty", "it wants a login: set `user` and `password_file`"),
    ("permission denied", "no permission: the user's role must cover the prefix"),
    ("Connection refused", "connection refused"),
    ("timed out", "does not answer"),
    ("no leader", "it has no leader: the majority of its members cannot be reached"),
)
"""What is said in another way than library and server say it."""


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every 0.1 s."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True


def prefix_end(prefix: str) -> str:
    """The first key after all that begin with an ASCII prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _encode(key: str) -> str:
    return _text(key.encode("utf-8", "surrogateescape"))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode("utf-8", "surrogateescape")


def _pair(item: Mapping[str, Any]) -> Pair:
    return Pair(
        _decode(item["key"]),
        base64.b64decode(item.get("value", "")),
        int(item["mod_revision"]),
        int(item.get("create_revision", 0)),
        int(item.get("lease", 0)),
    )


def _event(item: Mapping[str, Any]) -> Pair:
    pair = _pair(item["kv"])
    return pair._replace(value=None) if item.get("type") == "DELETE" else pair
