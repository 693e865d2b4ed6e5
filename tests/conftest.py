"""Fixtures and rules for the whole suite.

Tests marked `root` make network namespaces and TUN devices.  Without root, pytest
restarts itself once in a user namespace where it may.  Where even that fails, those
tests fail and say what to do, unless WGPY_NO_TUN=1 says that there is no TUN here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.netns import NO_TUN, Lab, why_impossible

# A test judges what happened, never how long it took on a busy machine.
settings.register_profile("wgpy", deadline=None)
settings.load_profile("wgpy")

# Started in the background by a shell, we would ignore it, and every program started here too.
signal.signal(signal.SIGINT, signal.default_int_handler)

INSIDE = "WGPY_IN_USER_NAMESPACE"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]
PRIVATE_RUN = 'mount -t tmpfs tmpfs /run && mkdir /run/netns /run/wireguard && exec "$@"'


def _no_tun() -> bool:
    return os.environ.get(NO_TUN) == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Without root: once more, in a user namespace with its own /run."""
    if os.geteuid() == 0 or INSIDE in os.environ or _no_tun() or hasattr(config, "workerinput"):
        return
    works = (
        shutil.which("unshare")
        and not subprocess.run(
            [*UNSHARE, "sh", "-c", PRIVATE_RUN, "sh", "true"], capture_output=True, check=False
        ).returncode
    )
    if not works:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    os.environ[INSIDE] = "1"
    again = [sys.executable, "-P", "-m", "pytest", *config.invocation_params.args]
    os.execvp("unshare", [*UNSHARE, "sh", "-c", PRIVATE_RUN, "sh", *again])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs TUN says so instead of failing somewhere in the middle."""
    if item.get_closest_marker("root") is None:
        return
    if _no_tun():
        pytest.skip(f"{NO_TUN}=1: there is no TUN device here")
    if reason := why_impossible():
        pytest.fail(f"{reason}  (or set {NO_TUN}=1 to leave these tests out)", pytrace=False)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Network namespaces for one test."""
    with Lab() as made:
        yield made
