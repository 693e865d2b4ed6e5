"""Debian's `ptp` and `bridge` and our plugin, driven through the same verbs.

What each answers is written down in `ANSWERS`; where they differ, docs/cni.md says so and
why.  Should a newer Debian answer otherwise, the table and the page have to follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.strict.cni import OWN4, OWN6, running
from tests.support.cni import Failed, Runner, host_local, leases

pytestmark = pytest.mark.root

PAGE = Path(__file__).parents[2] / "docs" / "cni.md"
PLUGINS = ("ptp", "bridge", "wgpy-cni")
ANSWERS = {
    # What is asked:                       ptp, bridge, wgpy-cni; 0: it is done
    "ADD": (0, 0, 0),
    "CHECK": (0, 0, 0),
    "ADD again": (999, 999, 7),
    "CHECK after that": (0, 0, 0),
    "CHECK, an address is gone": (999, 999, 101),
    "DEL": (0, 0, 0),
    "DEL again": (0, 0, 0),
    "DEL without CNI_NETNS": (0, 0, 0),
    "ADD, CNI_NETNS is not there": (999, 999, 3),
    "ADD, CNI_NETNS is the node's": (0, 0, 4),
    "ADD, the interface exists": (999, 999, 100),
    "ADD without CNI_CONTAINERID": (4, 4, 4),
    "ADD, CNI_IFNAME is a/b": (4, 4, 4),
    "ADD, version 9.9.9": (1, 1, 1),
    "ADD, version 1.1.0": (1, 1, 0),
    "STATUS, version 1.1.0": (3, 3, 0),
    "GC, version 1.1.0": (3, 3, 0),
    "ADD, no address is left": (999, 999, 999),
}


LEFT = {"ptp": [], "bridge": ["eth0"], "wgpy-cni": []}
"""Interfaces in the container after an ADD that failed for want of an address."""


def answers(plugin: str, lab, folder: Path, agent: str) -> dict[str, int]:
    """The error code for each of `ANSWERS`, 0 for none."""
    node, pod, other = (lab.namespace(name) for name in ("node", "pod", "other"))
    base = {"type": plugin, "bridge": "br0", "isGateway": True, "agent": agent,
            "ipam": host_local(folder, OWN4, OWN6)}  # fmt: skip

    def made(version: str = "1.0.0", name: str = "net", **more) -> Runner:
        return Runner(node, {"cniVersion": version, "name": name, "plugins": [base | more]})

    def code(action: Callable[..., object], *arguments: object) -> int:
        try:
            action(*arguments)
        except Failed as failed:
            return failed.code
        return 0

    runner, newer = made(), made("1.1.0")
    found = {
        "ADD": code(runner.add, "one", pod),
        "CHECK": code(runner.check, "one", pod),
        "ADD again": code(made().add, "one", pod),
        "CHECK after that": code(runner.check, "one", pod),
    }
    pod.ip("-4 address flush dev eth0")
    found["CHECK, an address is gone"] = code(runner.check, "one", pod)
    found["DEL"] = code(runner.delete, "one", pod)
    found["DEL again"] = code(runner.delete, "one", pod)
    found["DEL without CNI_NETNS"] = code(runner.delete, "one")
    assert leases(folder, "net") == {}
    pod.ip("link add eth0 type bridge")
    found["ADD, the interface exists"] = code(runner.add, "one", pod)
    pod.ip("link del eth0")
    found["ADD, CNI_NETNS is not there"] = code(runner.add, "one", "/run/netns/none")
    found["ADD without CNI_CONTAINERID"] = code(runner.add, "", pod)
    found["ADD, CNI_IFNAME is a/b"] = code(runner.add, "one", pod, "a/b")
    found["ADD, version 9.9.9"] = code(made("9.9.9").add, "one", pod)
    found["ADD, version 1.1.0"] = code(newer.add, "one", pod)
    found["STATUS, version 1.1.0"] = code(newer.status)
    found["GC, version 1.1.0"] = code(newer.collect)
    newer.delete("one", pod) if plugin == "wgpy-cni" else None
    small = made(name="small", ipam=host_local(folder, "10.55.1.0/30"), bridge="br1")
    small.add("one", pod)
    found["ADD, no address is left"] = code(small.add, "two", other)
    left = [row["ifname"] for row in json.loads(other.ip("-j link"))]
    assert left == ["lo", *LEFT[plugin]]
    small.delete("one", pod)
    found["ADD, CNI_NETNS is the node's"] = code(runner.add, "own", f"/proc/{node.pid}/ns/net")
    return found


@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_each_answers(plugin, lab, tmp_path):
    quiet = lab.namespace("agent")
    with quiet.entered(), running(tmp_path) as agent:
        found = answers(plugin, lab, tmp_path / "leases", str(agent.folder / "wgcni.cni"))
    column = PLUGINS.index(plugin)
    assert found == {name: codes[column] for name, codes in ANSWERS.items()}


def test_the_page_has_every_difference():
    text = PAGE.read_text()
    for name, codes in ANSWERS.items():
        if len(set(codes)) > 1:
            cells = " | ".join(str(code) if code else "done" for code in codes)
            assert f"| {name} | {cells} |" in text, name
