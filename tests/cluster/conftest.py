"""The sentinel: no cluster test may put a readable pod packet on an underlay unannounced.

A test that shows a leak on purpose says so with `@pytest.mark.leaks` and then *must* leak:
if nothing is seen there, the sniffer or the test is broken.  The form of a test for default
mode (its parameter `mode`) says itself what it wants to see.
"""

from __future__ import annotations

import pytest

from testbed.classify import LEAKS
from testbed.cluster import Cluster, registered
from testbed.privileges import STATE_VARIABLE


@pytest.fixture(autouse=True, scope="module")
def state(tmp_path_factory):
    """A private registry of clusters for the module; none may stay."""
    patch = pytest.MonkeyPatch()
    patch.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("state")))
    yield
    left = registered()
    for name in left:
        Cluster.load(name).down()
    patch.undo()
    assert left == []


@pytest.fixture(autouse=True)
def sentinel(request):
    """Watches every cluster of the module (fixtures named `…range`) during every test."""
    names = [name for name in request.fixturenames if name.endswith("range")]
    ranges = [request.getfixturevalue(name) for name in names]
    before = [r.leaked() for r in ranges]
    yield
    after = [r.leaked() for r in ranges]
    seen = sum(after) - sum(before)
    if request.node.get_closest_marker("leaks"):
        assert seen > 0, "this test announces a leak, and the sentinel saw none"
    elif seen and not _in_default_mode(request.node):
        shown = [str(record) for r in ranges for record in r.sniffer.plaintext(*LEAKS)]
        pytest.fail(f"the sentinel saw {seen} leaks:\n" + "\n".join(shown[-10:]))


def _in_default_mode(item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("mode") == "default"
