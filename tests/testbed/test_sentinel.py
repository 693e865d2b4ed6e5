"""A sentinel that is dead, deaf or late is an error, never a zero."""

from __future__ import annotations

import json
import os
import signal

import pytest
from click.testing import CliRunner

from testbed import sentinel
from testbed.cli import testbed as command
from testbed.cluster import Cluster, registered
from testbed.namespaces import start_time, wait_until
from testbed.sentinel import SentinelError
from testbed.topology import parse_topology

pytestmark = pytest.mark.root

BARE = "name: bare\nnodes: {alpha: {pods: [one]}, beta: {pods: [two]}}\n"


@pytest.fixture
def watched():
    with Cluster.up(parse_topology(BARE), owned=False, start=False) as cluster:
        sentinel.launch(cluster)
        yield cluster
        sentinel.end(cluster.folder)


def inspect(*words):
    return CliRunner().invoke(command, ["inspect", *words])


def pid_of(cluster):
    return sentinel.read(cluster.folder)["pid"]


def test_up_returns_with_the_first_canary_seen(watched):
    assert len(sentinel.read(watched.folder)["canaries"]) == 2
    done = inspect()
    assert done.exit_code == 0 and "0  frames missed" in done.stdout
    assert json.loads(inspect("--json").stdout)["sentinel"]["missed"] == 0


def test_what_was_on_the_wire_before_is_counted_without_waiting(watched):
    watched.namespaces["alpha/one"].run("ping", "-c", "1", "-W", "2", "10.244.2.10")
    assert sentinel.ask(watched)["kinds"]["POD_TO_POD"] == 2


def test_a_killed_sentinel(watched):
    os.kill(pid_of(watched), signal.SIGKILL)
    assert wait_until(lambda: start_time(pid_of(watched)) is None)
    for words in ([], ["--json"]):
        done = inspect(*words)
        assert done.exit_code == 1
        assert "the sentinel is dead" in done.stderr
        assert "frames missed" not in done.stdout
    assert "dead" in json.loads(inspect("--json").stdout)["sentinel"]["error"]


def test_a_stopped_sentinel_and_one_that_goes_on(watched):
    pid = pid_of(watched)
    os.kill(pid, signal.SIGSTOP)
    done = inspect()
    assert done.exit_code == 1 and f"stopped: kill -CONT {pid}" in done.stderr
    os.kill(pid, signal.SIGCONT)
    assert inspect().exit_code == 0


def test_its_interface_is_down(watched):
    watched.namespaces["underlay"].run("ip", "link", "set", "alpha.0", "down")
    done = inspect()
    assert done.exit_code == 1
    assert "receives nothing: alpha.0, where it listens to alpha, is down" in done.stderr


def test_no_device_is_up_at_all(watched):
    for node in ("alpha", "beta"):
        watched.namespaces[node].run("ip", "link", "set", "eth0", "down")
    with pytest.raises(SentinelError, match="nothing proves that it hears"):
        sentinel.ask(watched)
    watched.namespaces["alpha"].run("ip", "link", "set", "eth0", "up")
    sentinel.ask(watched)


def test_one_that_does_not_write_down_what_it_should(watched):
    """Alive, but its list of canaries stays as it is."""
    frozen = watched.folder / "sentinel.json"
    state = sentinel.read(watched.folder)
    os.kill(state["pid"], signal.SIGKILL)
    here = {**state, "pid": os.getpid(), "started": start_time(os.getpid())}
    frozen.write_text(json.dumps(here))
    with pytest.raises(SentinelError, match=r"after 0\.2 s it has not seen 2 of 2"):
        sentinel.ask(watched, patience=0.2)
    frozen.write_text(json.dumps(state))


def test_missed_frames_are_no_zero(watched):
    sentinel.ask(watched)
    asked = sentinel._alive

    def missing(folder):
        return asked(folder) | {"missed": 3}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentinel, "_alive", missing)
        with pytest.raises(SentinelError, match="missed 3 of"):
            sentinel.ask(watched)


def test_up_fails_when_the_sentinel_cannot_start(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(sentinel, "python_module", lambda *_: ["sh", "-c", "echo no eyes >&2"])
    topology = tmp_path / "two.yaml"
    topology.write_text("name: two\nmode: plain\nnodes: {alpha: , beta: }\n")
    done = CliRunner().invoke(command, ["up", str(topology)])
    assert done.exit_code == 1 and "the sentinel did not start: no eyes" in done.stderr
    assert registered() == [watched.name]


def test_down_also_ends_a_stopped_sentinel():
    with Cluster.up(parse_topology(BARE), owned=False, start=False) as cluster:
        sentinel.launch(cluster)
        pid = pid_of(cluster)
        os.kill(pid, signal.SIGSTOP)
        done = CliRunner().invoke(command, ["down", "bare", "--json"])
        assert json.loads(done.stdout) == {"down": ["bare"]}
        assert wait_until(lambda: start_time(pid) is None)
