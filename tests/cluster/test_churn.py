"""A thousand entries a second come and go for a minute; a stranger's stream feels nothing."""

from __future__ import annotations

import time

import pytest

from testbed.load import finish_ping, start_ping
from tests.cluster.harness import shooting_range

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("cluster churn")]

CLUSTER = """
name: churn
mode: strict
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
"""
SECONDS, PER_SECOND = 60, 1000


@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.mark.timeout(180)
def test_churn_does_not_touch_an_unrelated_stream(firing_range):
    r = firing_range
    count = SECONDS * 20
    view = r.cluster.views["alpha"]
    pings = start_ping(
        r.cluster.namespaces["alpha/client"], r.pod("beta/server", 4), count=count, interval=0.05
    )
    began = time.monotonic()
    for second in range(SECONDS):
        # All of them go, as many others come: so many deletions and upserts every second.
        view.endpoints["churn"] = [
            {"ip": f"10.244.{100 + number // 250}.{number % 250 + 1}", "node": "beta",
             "identity": 1 + (second + number) % 60000}
            for number in range(second % 2 * PER_SECOND, (second % 2 + 1) * PER_SECOND)
        ]  # fmt: skip
        r.cluster.publish("alpha")
        time.sleep(max(0, began + second + 1 - time.monotonic()))
    done = finish_ping(pings, count)
    assert done.received == count
    status = r.cluster.agent_status("alpha")
    assert status["discovery_lag"]["count"] >= SECONDS * PER_SECOND // 2
    del view.endpoints["churn"]
