"""Every test's clusters are registered in a folder of its own, and none may stay."""

from __future__ import annotations

import pytest

from testbed.cluster import Cluster, registered
from testbed.privileges import STATE_VARIABLE


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A private state folder; whatever is left in it is taken down and is a failure."""
    folder = tmp_path / "state"
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    yield folder
    left = registered()
    for name in left:
        Cluster.load(name).down()
    assert left == []
