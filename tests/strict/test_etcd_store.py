"""Against real etcd servers: killed, frozen, compacted, replaced, without a leader, locked.

Nothing is timed: each step waits until what it wants has happened.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from strict.discovery import EntryUpsert, NodeUpsert, Synced
from strict.discovery.etcd import store as store_module
from strict.discovery.etcd.drain import withdraw
from strict.discovery.etcd.layout import Layout, encode, entry_fields, node_fields, parse
from strict.discovery.etcd.settings import EtcdSettings
from strict.discovery.etcd.source import EtcdDiscovery
from strict.discovery.etcd.store import Compacted, Pair, Store, StoreError
from strict.discovery.etcd.writer import Writer
from strict.ipcache import Entry
from strict.nodes import Node
from strict.state import ClusterState
from testbed.namespaces import wait_until
from tests.strict.helpers import a, config, key, node, p
from tests.support.etcd import Authority, Etcd, etcd, leader_of, three

ALPHA = node("alpha", 1, cidrs=("10.244.1.0/24",))
BETA = node("beta", 2, cidrs=("10.244.2.0/24",))
NODES = "cilium/state/nodes/v1/default/"
PODS = "cilium/state/ip/v1/default/"
POD = Entry(p("10.244.2.7"), "beta")


class Watcher:
    """A source and what it has said so far, merged as the agent does."""

    def __init__(self, settings: EtcdSettings, own: Node = ALPHA) -> None:
        self.source = EtcdDiscovery(settings, own, jitter=random.Random(1).random)
        assert own.public_key is not None
        self.state = ClusterState(config(node=own.name), own.public_key)
        self.state.take("file", [NodeUpsert(replace(own, public_key=None))])
        self.said: list[object] = []
        self.deletions = 0

    def poll(self) -> None:
        updates = self.source.poll()
        self.said += updates
        changes = self.state.take("etcd", updates, shared=True)
        self.deletions += sum(node is None for node in changes.nodes.values())
        self.deletions += sum(entry is None for entry in changes.entries.values())
        self.source.applied()

    def until(self, *wanted: str, seconds: float = 20) -> None:
        """Wait until exactly these are known: names of nodes and prefixes, without our own."""

        def reached() -> bool:
            self.poll()
            return set(wanted) == self.known()

        assert wait_until(reached, seconds), (wanted, self.known(), self.source.problem)

    def known(self) -> set[str]:
        table = self.state.table
        names = {it.name for it in table.nodes} - {self.state.config.node}
        return names | {str(entry.prefix) for entry in table.ipcache}

    def problem(self, part: str) -> None:
        """Wait for a problem with these words; "": for none."""

        def found() -> bool:
            self.poll()
            return part in self.source.problem if part else not self.source.problem

        assert wait_until(found, 25), (part, self.source.problem)

    def synced(self) -> Watcher:
        assert wait_until(lambda: self.poll() or Synced() in self.said, 20), self.source.problem
        return self


@contextmanager
def watching(
    *settings: EtcdSettings, own: tuple[Node, ...] = (ALPHA, BETA)
) -> Iterator[list[Watcher]]:
    made = [Watcher(*pair) for pair in zip(settings, own, strict=False)]
    try:
        yield [watcher.synced() for watcher in made]
    finally:
        for watcher in made:
            watcher.source.close()


def write(store: Store, it: Node, *pods: Entry, lease: int = 0) -> None:
    """As another agent would."""
    store.put(NODES + it.name, encode(node_fields(it, "default")), lease)
    for entry in pods:
        fields = entry_fields(entry, it.addresses[0])
        store.put(PODS + str(entry.prefix).removesuffix("/32"), encode(fields), lease)


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    """One that nobody kills."""
    with etcd() as made:
        yield made


@pytest.fixture
def store(server: Etcd) -> Iterator[Store]:
    made = server.store()
    yield made
    made.delete("cilium/", prefix=True)
    made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits, the same steps."""
    monkeypatch.setattr(store_module, "REQUEST_TIMEOUT", 1.5)
    monkeypatch.setattr(store_module, "IDLE", 1.5)
    monkeypatch.setattr(store_module, "LAST_RETRY", 0.5)


def test_two_nodes_learn_of_each_other(server: Etcd, store: Store) -> None:
    with watching(server.settings(), server.settings()) as (alpha, beta):
        beta.source.publish(BETA, [POD])
        alpha.until("beta", "10.244.2.7/32")
        alpha.source.publish(ALPHA)
        beta.until("alpha")
        assert alpha.state.table.nodes.get("beta") == BETA
        leases = {pair.lease for _, page in store.pages("cilium/") for pair in page}
        assert len(leases) == 2 and 0 not in leases, "everything hangs on its node's lease"
        writes = beta.source.writer.writes
        beta.source.publish(replace(BETA, boot_id="2"), [POD])
        assert wait_until(lambda: alpha.poll() or alpha.state.table.nodes.get("beta")
                          == replace(BETA, boot_id="2"), 10)  # fmt: skip
        assert beta.source.writer.writes == writes + 1, "only what is different is written"
        beta.source.publish(replace(BETA, boot_id="2"), [])
        alpha.until("beta")


def test_own_keys_come_back(server: Etcd, store: Store) -> None:
    """Deleted by hand, overwritten by others; their fields are kept, their claims not."""
    with watching(server.settings(), server.settings()) as (alpha, beta):
        beta.source.publish(BETA, [POD])
        alpha.until("beta", "10.244.2.7/32")

        def right(name: str, field: str, value: object) -> bool:
            beta.poll()
            found = store.get(name)
            if found is None or not (found.value or b"").startswith(b"{"):
                return False
            return bool(parse(found.value or b"").get(field) == value)

        for name, field, value in (
            (NODES + "beta", "WireguardPubKey", key(2).base64),
            (PODS + "10.244.2.7", "HostIP", "192.168.5.2"),
        ):
            store.delete(name)
            assert wait_until(lambda n=name, f=field, v=value: right(n, f, v), 10)
            stolen = parse((store.get(name) or pytest.fail("gone")).value or b"{}")
            stolen |= {field: key(9).base64 if "Key" in field else "192.168.5.9", "More": 1}
            store.put(name, encode(stolen), 0)
            assert wait_until(lambda n=name, f=field, v=value: right(n, f, v), 10)
            assert right(name, "More", 1)
            store.put(name, b"junk", 0)
            assert wait_until(lambda n=name, f=field, v=value: right(n, f, v), 10)
        # What others say about this node's address is taken out.
        write(store, replace(BETA, name="beta"), Entry(p("10.244.2.99"), "beta"))
        assert wait_until(lambda: beta.poll() or store.get(PODS + "10.244.2.99") is None, 10)
        alpha.until("beta", "10.244.2.7/32")


def test_what_a_former_life_left_behind_goes(server: Etcd, store: Store) -> None:
    write(store, BETA, POD, Entry(p("10.244.2.8"), "beta"))
    with watching(server.settings(), own=(BETA,)) as (beta,):
        beta.source.publish(BETA, [POD])
        assert wait_until(lambda: beta.poll() or store.get(PODS + "10.244.2.8") is None, 10)
        assert wait_until(lambda: (store.get(PODS + "10.244.2.7") or ((0,) * 5))[4], 10)


def test_two_clusters_in_one_store_do_not_see_each_other(server: Etcd, store: Store) -> None:
    """The same names, addresses and pods in both."""
    east, west = (server.settings(cluster=name, address_space=name) for name in ("east", "west"))
    with watching(east, west, east, west, own=(ALPHA, ALPHA, BETA, BETA)) as all_four:
        others = [all_four[2], all_four[3]]
        for number, beta in enumerate(others):
            beta.source.publish(replace(BETA, public_key=key(20 + number)), [POD])
        for alpha in all_four[:2]:
            alpha.until("beta", "10.244.2.7/32")
        keys = [alpha.state.table.nodes.get("beta").public_key  # type: ignore[union-attr]
                for alpha in all_four[:2]]  # fmt: skip
        assert keys == [key(20), key(21)]
        others[0].source.publish(BETA, [])
        all_four[0].until("beta")
        all_four[1].until("beta", "10.244.2.7/32")
        assert not any(watcher.state.refused for watcher in all_four)
    store.delete("cilium/", prefix=True)


def test_a_dead_nodes_lease_runs_out(server: Etcd, store: Store) -> None:
    """Its pods are dropped from then on; the node that lives keeps its own lease alive."""
    with watching(server.settings(ttl=5), server.settings(ttl=5)) as (alpha, beta):
        alpha.source.publish(ALPHA)
        beta.source.publish(BETA, [POD])
        alpha.until("beta", "10.244.2.7/32")
        decide = alpha.state.table.decide
        assert decide(a("10.244.1.5"), a("10.244.2.7")).outcome == "encrypted"
        beta.source.close()
        beta.source.writer.join(10)
        alpha.until(seconds=30)
        assert decide(a("10.244.1.5"), a("10.244.2.7")).outcome == "dropped"
        assert store.get(NODES + "alpha") is not None


def test_a_lease_that_was_revoked_by_hand(server: Etcd, store: Store) -> None:
    with watching(server.settings(), server.settings(ttl=5)) as (alpha, beta):
        beta.source.publish(BETA)
        alpha.until("beta")
        found = store.get(NODES + "beta")
        assert found is not None
        store.revoke(found.lease)
        alpha.deletions = 0
        assert wait_until(lambda: beta.poll() or alpha.poll() or alpha.deletions, 10)
        alpha.until("beta", seconds=30)


def test_malicious_keys_in_a_real_store(server: Etcd, store: Store) -> None:
    """Each is refused alone; see test_claims for the whole list."""
    thief = node("thief", 9, cidrs=("10.244.9.0/24",))
    write(store, BETA, POD)
    write(store, thief, Entry(p("10.244.2.8"), "thief"), Entry(p("0.0.0.0/0"), "thief"))
    write(store, replace(thief, name="t2", public_key=key(2), addresses=(a("192.168.5.10"),),
                         pod_cidrs=()))  # fmt: skip
    write(store, replace(thief, name="192.168.5.2"))
    store.put(NODES + "big", b'{"Name":"' + b"x" * 1_000_000 + b'"}', 0)
    store.put(NODES + "junk", b"\xff\x00{", 0)
    store.put("cilium/state/ip/v1/default/\xff", b"{}", 0)
    with watching(server.settings()) as (alpha,):
        alpha.until("beta", "thief", "10.244.2.7/32")
        refused = alpha.state.refused
        assert {"t2", "10.244.2.8/32", "0.0.0.0/0", NODES + "big", NODES + "junk",
                NODES + "192.168.5.2"} <= set(refused)  # fmt: skip
        assert "1000011 bytes" in refused[NODES + "big"]
        assert alpha.state.table.nodes.at(a("192.168.5.2")) == BETA
        store.delete(NODES + "big")
        assert wait_until(lambda: alpha.poll() or NODES + "big" not in refused, 10)


def test_pages(server: Etcd, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing in pages is one of one revision; what is written meanwhile is watched."""
    monkeypatch.setattr(store_module, "PAGE", 7)
    pods = [Entry(p(f"10.244.2.{n}"), "beta") for n in range(40)]
    write(store, BETA, *pods)
    pages = store.pages(PODS)
    revision, first = next(pages)
    assert len(first) == 7
    store.delete(PODS + "10.244.2.39")
    assert 7 + sum(len(page) for at, page in pages if at == revision) == 40
    with watching(server.settings()) as (alpha,):
        alpha.until("beta", *(f"10.244.2.{n}/32" for n in range(39)))


class TestFaults:
    """Servers of their own."""

    def test_killed_and_started_again(self) -> None:
        with etcd() as server, watching(server.settings(), server.settings()) as (alpha, beta):
            beta.source.publish(BETA, [POD])
            alpha.until("beta", "10.244.2.7/32")
            server.kill()
            alpha.problem("connection refused")
            assert alpha.known() == {"beta", "10.244.2.7/32"}, "what is known stays"
            beta.source.publish(replace(BETA, boot_id="2"), [])
            server.start()
            alpha.problem("")
            alpha.until("beta")
            assert alpha.state.table.nodes.get("beta") == replace(BETA, boot_id="2")
            assert alpha.source.reader.listings == 1, "the watch went on where it was"
            assert alpha.deletions == 1

    def test_frozen(self) -> None:
        """A server that neither answers nor hangs up is found out, too."""
        with etcd() as server, watching(server.settings()) as (alpha,):
            server.signal(signal.SIGSTOP)
            alpha.problem("does not answer")
            server.signal(signal.SIGCONT)
            alpha.problem("")
            store = server.store()
            write(store, BETA)
            alpha.until("beta")

    def test_compacted_while_the_watch_was_down(self) -> None:
        """Listed again, and only the difference is said: nothing is forgotten meanwhile."""
        gamma = node("gamma", 3, cidrs=("10.244.3.0/24",))
        with etcd() as server, watching(server.settings()) as (alpha,):
            store = server.store()
            write(store, BETA, POD)
            write(store, gamma)
            alpha.until("beta", "gamma", "10.244.2.7/32")
            said = len(alpha.said)
            # No watch while this happens: the reader's next requests are to fail.
            server.signal(signal.SIGSTOP)
            alpha.problem("does not answer")
            server.kill()
            alpha.source.reader._store._settings = server.settings(endpoints=("http://127.0.0.1:1",))
            server.start()
            alpha.problem("connection refused")
            store.delete(NODES + "gamma")
            write(store, BETA, Entry(p("10.244.2.8"), "beta"))
            server.compact()
            alpha.source.reader._store._settings = server.settings()
            alpha.until("beta", "10.244.2.7/32", "10.244.2.8/32")
            assert alpha.source.reader.listings == 2 and alpha.deletions == 1
            fresh = alpha.said[said:]
            repeated = [item.entry for item in fresh if isinstance(item, EntryUpsert)]
            assert POD.prefix not in [entry.prefix for entry in repeated]
            assert Synced() not in fresh

    def test_put_back_to_a_backup(self) -> None:
        """A store that is older than what was seen is listed again, not waited for."""
        with etcd() as server, watching(server.settings()) as (alpha,):
            store = server.store()
            for number in range(20):
                write(store, replace(BETA, boot_id=str(number)))
            alpha.until("beta")
            server.kill()
            with etcd(port=server.port, peer=server.peer) as other:
                write(other.store(), node("gamma", 3))
                alpha.until("gamma")

    def test_the_next_endpoint(self) -> None:
        with three() as members:
            settings = members[0].settings(endpoints=tuple(member.url for member in members))
            with watching(settings, settings) as (alpha, beta):
                beta.source.publish(BETA, [POD])
                alpha.until("beta", "10.244.2.7/32")
                leader_of(members).kill()
                beta.source.publish(BETA, [])
                alpha.until("beta")
                alpha.problem("")
                rest = [member for member in members if member.process.poll() is None]  # type: ignore[union-attr]
                alpha.poll()
                known = alpha.known()
                # One of two is left: no leader.  Reads stop, and what is known stays.
                rest[0].kill()
                alpha.source.reader.problem = ""
                assert wait_until(lambda: "leader" in alpha.source.reader.problem, 20), (
                    alpha.source.reader.problem)
                assert alpha.known() == known and alpha.deletions == 1
                rest[0].start(wait=False)
                alpha.problem("")
                beta.source.publish(BETA, [POD])
                alpha.until("beta", "10.244.2.7/32")

    def test_certificates(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        authority.issue("server")
        authority.issue("client")
        authority.issue("expired", days=-1)
        Authority(tmp_path, "stranger").issue("unknown")
        with etcd(tls=tmp_path) as server:
            good = server.settings()
            with watching(good) as (alpha,):
                alpha.problem("")
            ours = "our certificate is not accepted"
            cases = [
                ("its certificate is not accepted (see `ca`", {"ca": tmp_path / "stranger.crt"}),
                (ours, {"cert": tmp_path / "expired.crt", "key": tmp_path / "expired.key"}),
                (ours, {"cert": tmp_path / "unknown.crt", "key": tmp_path / "unknown.key"}),
                (ours, {"cert": None, "key": None}),
                ("gone.crt", {"cert": tmp_path / "gone.crt"}),
            ]  # fmt: skip
            for words, change in cases:
                with pytest.raises(StoreError) as caught:
                    Store(replace(good, **change)).get("x")
                assert words in str(caught.value), (words, caught.value)
                assert server.url in str(caught.value) and "Traceback" not in str(caught.value)

    def test_an_expired_server_and_its_renewal(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        authority.issue("server", days=-1)
        authority.issue("client")
        with etcd(tls=tmp_path) as server:
            alpha = Watcher(server.settings())
            alpha.problem("its certificate is not accepted (see `ca`, and its dates)")
            server.kill()
            authority.issue("server")
            server.start()
            alpha.synced().problem("")
            alpha.source.close()

    def test_users_and_changed_passwords(self, tmp_path: Path) -> None:
        """A role for the prefix alone; the password file is read again at each login."""
        with etcd() as server:
            root = server.store()
            for user, password in (("root", "r"), ("agent", "one")):
                root.request("/auth/user/add", {"name": user, "password": password})
            root.request("/auth/role/add", {"name": "root"})
            root.request("/auth/user/grant", {"user": "root", "role": "root"})
            root.request("/auth/role/add", {"name": "cilium"})
            low, high = "Y2lsaXVtLw==", "Y2lsaXVtMA=="  # cilium/ to cilium0
            permission = {"permType": "READWRITE", "key": low, "range_end": high}
            root.request("/auth/role/grant", {"name": "cilium", "perm": permission})
            root.request("/auth/user/grant", {"user": "agent", "role": "cilium"})
            root.request("/auth/enable", {})
            secret = tmp_path / "password"
            secret.write_text("wrong\n")
            settings = server.settings(user="agent", password_file=secret)
            with pytest.raises(StoreError, match="it wants a login") as caught:
                server.store().get("cilium/x")
            alpha = Watcher(settings)
            alpha.problem("user or password is wrong (see `user` and `password_file`)")
            secret.write_text("one\n")
            alpha.synced().problem("")
            alpha.source.publish(ALPHA)
            with pytest.raises(StoreError, match="no permission") as caught:
                Store(settings).put("elsewhere", b"", 0)
            assert caught.value.code == 7
            (tmp_path / "root").write_text("r")
            admin = server.store(user="root", password_file=tmp_path / "root")
            assert wait_until(lambda: admin.get(NODES + "alpha"), 10)
            admin.request("/auth/user/changepw", {"name": "agent", "password": "two"})
            alpha.problem("user or password is wrong")
            assert "one" not in alpha.source.problem, "no secret in a problem"
            secret.write_text("two\n")
            alpha.problem("")
            write(admin, BETA)
            alpha.until("beta")
            alpha.source.close()


def test_a_watch_before_the_compaction(server: Etcd, store: Store) -> None:
    write(store, BETA)
    write(store, BETA)
    server.compact()
    with pytest.raises(Compacted):
        next(store.watch("cilium/", 1))


class Memory:
    """As much of a store as the writer needs, for what no real one does on demand."""

    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self.leases = 0
        self.lost = False

    def get(self, name: str) -> Pair | None:
        return self.pairs.get(name)

    def put(self, name: str, value: bytes, lease: int) -> None:
        self.pairs[name] = Pair(name, value, 1, 1, lease)

    def delete(self, name: str) -> None:
        self.pairs.pop(name, None)

    def grant(self, _ttl: int) -> int:
        self.leases += 1
        return self.leases

    def keep_alive(self, _lease: int) -> bool:
        return not self.lost

    def close(self) -> None:
        pass


def test_a_lost_lease_is_replaced_without_anybody_saying_so() -> None:
    """Also where the watch is down: everything that hung on it is written again."""
    memory = Memory()
    writer = Writer(memory, Layout(server_less()), 60, lambda: 0.5, lambda: None)  # type: ignore[arg-type]
    writer.want({"a": {"Name": "a"}, "b": {"Name": "b"}}, set())
    writer._round()
    assert [pair.lease for pair in memory.pairs.values()] == [1, 1] and writer.writes == 2
    writer._round()
    writer.check({"a", "b"})
    writer._round()
    assert writer.writes == 2, "nothing is different"
    memory.lost, writer._renew_at = True, 0.0
    memory.pairs.clear()
    writer._round()
    assert [pair.lease for pair in memory.pairs.values()] == [2, 2]


def server_less() -> EtcdSettings:
    return EtcdSettings(("http://127.0.0.1:1",))


class TestLeaving:
    """`wgpy strict drain`."""

    def test_the_others_confirm(self, server: Etcd, store: Store) -> None:
        with watching(server.settings(), server.settings()) as (alpha, beta):
            alpha.source.publish(ALPHA)
            beta.source.publish(BETA, [POD, Entry(p("10.244.2.8"), "beta")])
            alpha.until("beta", "10.244.2.7/32", "10.244.2.8/32")
            beta.source.close()
            beta.source.writer.join(10)
            done: list[list[str]] = []
            thread = threading.Thread(
                target=lambda: done.append(withdraw(server.settings(), BETA, 20, lambda _: None)))
            thread.start()
            alpha.until()
            assert wait_until(lambda: alpha.poll() or done, 20) and done == [[]]
            left = {pair.key for _, page in store.pages("cilium/") for pair in page}
            assert left == {NODES + "alpha"}

    def test_who_does_not_confirm_is_named(self, server: Etcd, store: Store) -> None:
        write(store, BETA, POD)
        write(store, node("silent", 5))
        said: list[str] = []
        assert withdraw(server.settings(), BETA, 0.2, said.append) == ["silent"]
        assert "1 others are to answer" in said[0]
        left = {pair.key for _, page in store.pages("cilium/") for pair in page}
        assert left == {NODES + "silent"}
