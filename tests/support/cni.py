"""A container runtime in miniature: runs CNI plugins as `cnitool` does, verb by verb.

A network is a list of plugins (section 3 of the specification): ADD and CHECK run them in
order, each with the result of the one before, DEL in reverse with the last result of ADD.
Results are cached by attachment.  Like libcni it does not undo an ADD that failed: that is
the runtime's next call.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.dataplane import program
from tests.support.netns import Namespace

DEBIAN = Path("/usr/lib/cni")
OURS = Path(program("wgpy-cni")).parent
CACHE_KEY = tuple[str, str]

Execute = Callable[[str, Mapping[str, str], bytes], subprocess.CompletedProcess[bytes]]


class Failed(Exception):
    """A plugin said no; `code` is the specification's number."""

    def __init__(self, plugin: str, answer: Mapping[str, Any]) -> None:
        super().__init__(f"{plugin}: {answer}")
        self.plugin = plugin
        self.code = answer["code"]
        self.answer = answer


class Runner:
    """One network on one node."""

    def __init__(
        self,
        node: Namespace,
        network: Mapping[str, Any],
        *,
        path: Sequence[Path] = (DEBIAN, OURS),
        execute: Execute | None = None,
    ) -> None:
        """`execute` replaces the start of a program: type, environment, standard input."""
        self.node = node
        self.network = network
        self.path = path
        self.cache: dict[CACHE_KEY, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        """Plugin and verb, of every program that was run."""
        self._execute = execute or self._start

    def add(self, container: str, pod: Namespace | str, ifname: str = "eth0") -> dict[str, Any]:
        """The last plugin's result."""
        result: dict[str, Any] = {}
        for plugin in self.network["plugins"]:
            given = {"prevResult": result} if result else {}
            result = self._call("ADD", plugin, container, _netns(pod), ifname, given)
        self.cache[container, ifname] = result
        return result

    def delete(self, container: str, pod: Namespace | str = "", ifname: str = "eth0") -> None:
        cached = self.cache.get((container, ifname))
        given = {"prevResult": cached} if cached else {}
        for plugin in reversed(self.network["plugins"]):
            self._call("DEL", plugin, container, _netns(pod), ifname, given)
        self.cache.pop((container, ifname), None)

    def check(self, container: str, pod: Namespace | str, ifname: str = "eth0") -> None:
        given = {"prevResult": self.cache[container, ifname]}
        for plugin in self.network["plugins"]:
            self._call("CHECK", plugin, container, _netns(pod), ifname, given)

    def status(self) -> None:
        for plugin in self.network["plugins"]:
            self._call("STATUS", plugin)

    def collect(self) -> None:
        """GC with what is cached; libcni writes the key in two spellings."""
        valid = [{"containerID": c, "ifname": i} for c, i in self.cache]
        for plugin in self.network["plugins"]:
            self._call("GC", plugin, config={"cni.dev/valid-attachments": valid,
                                             "cni.dev/attachments": valid})  # fmt: skip

    def version(self, plugin: str) -> list[str]:
        answer = self._run("VERSION", plugin, {}, {"cniVersion": self.network["cniVersion"]})
        return answer["supportedVersions"]

    def _call(
        self,
        verb: str,
        plugin: Mapping[str, Any],
        container: str = "",
        netns: str = "",
        ifname: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        whole = {key: self.network[key] for key in ("cniVersion", "name")} | dict(plugin)
        environment = {"CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname}
        return self._run(verb, plugin["type"], environment, whole | dict(config or {}))

    def _run(
        self, verb: str, plugin: str, environment: Mapping[str, str], config: Mapping[str, Any]
    ) -> dict[str, Any]:
        self.calls.append((plugin, verb))
        whole = {"CNI_COMMAND": verb, "CNI_PATH": os.pathsep.join(map(str, self.path))}
        done = self._execute(plugin, whole | dict(environment), json.dumps(config).encode())
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
        if done.returncode:
            raise Failed(plugin, answer)
        return answer

    def _start(
        self, plugin: str, environment: Mapping[str, str], text: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        found = next(folder / plugin for folder in self.path if (folder / plugin).exists())
        return subprocess.run(
            self.node.command(str(found)),
            input=text,
            capture_output=True,
            env=os.environ | dict(environment),
            timeout=60,
            check=False,
        )


def _netns(pod: Namespace | str) -> str:
    return pod if isinstance(pod, str) else f"/proc/{pod.pid}/ns/net"


def host_local(folder: Path, *subnets: str, **more: Any) -> dict[str, Any]:
    """Debian's `host-local`, its leases in `folder`."""
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    return {"type": "host-local", "dataDir": str(folder), "ranges": ranges, **more}


def leases(folder: Path, network: str) -> dict[str, str]:
    """Address to container, of what `host-local` has given out."""
    found = {}
    for path in (folder / network).glob("*"):
        if path.name[0].isdigit() or ":" in path.name:
            found[path.name] = path.read_text().split()[0]
    return found
