"""podman on a testbed node: its own storage, the node's network, our plugin as its network.

A node's /run is its own already; the rest of what podman shares on a machine (storage,
locks, CNI's cache) is put below a folder or made private to the node here.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

from testbed.dataplane import program
from testbed.namespaces import Namespace, start_time

BUSYBOX = Path("/bin/busybox")
TOOLS = ("echo", "httpd", "ip", "nc", "ping", "printf", "sh", "sleep")
NEEDED = {"podman": "podman", "runc": "runc", str(BUSYBOX): "busybox-static",
          "/usr/lib/cni/host-local": "containernetworking-plugins"}  # fmt: skip
NETWORK = "wgpy"


def why_impossible() -> str:
    """Empty when containers can be run, else what is missing and the fix."""
    missing = [package for name, package in NEEDED.items() if shutil.which(name) is None]
    return f"apt-get install {' '.join(missing)}" if missing else ""


def confined() -> bool:
    """Whether this is a user namespace: its root has no cgroups to give to a container."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def make_root(folder: Path) -> Path:
    """A root file system with nothing but busybox and one page for `httpd`."""
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "www"):
        (folder / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for tool in TOOLS:
        (folder / "bin" / tool).symlink_to("busybox")
    (folder / "www/index.html").write_text("a page\n")
    return folder


class Podman:
    """The containers of one node."""

    def __init__(self, node: Namespace, folder: Path, root: Path, config: Path) -> None:
        """`folder` is podman's, `root` the containers' files, `config` the agent's file."""
        self.node = node
        self._root = root
        self._folder = folder
        plugins, networks = folder / "bin", folder / "net.d"
        (folder / "storage").mkdir(parents=True)
        self._conf = folder / "containers.conf"
        self._conf.write_text(
            "[network]\nnetwork_backend = 'cni'\n"
            f"cni_plugin_dirs = ['{plugins}', '/usr/lib/cni']\n"
            f"network_config_dir = '{networks}'\n"
            "[engine]\nruntime = 'runc'\nevents_logger = 'none'\nlock_type = 'file'\n"
            "cgroup_manager = 'cgroupfs'\n[containers]\nlog_driver = 'k8s-file'\n"
        )
        # Under the testbed's sysfs are the cgroups that a container needs.
        node.run("umount", "/sys", check=False)
        for private in ("/var/lib/cni", "/var/lib/containers"):
            Path(private).mkdir(parents=True, exist_ok=True)
            node.run("mount", "-t", "tmpfs", "tmpfs", private)
        node.run(program("wgpy"), "strict", "cni", "install", "--config", str(config),
                 "--config-dir", str(networks), "--bin-dir", str(plugins))  # fmt: skip

    def __call__(self, *words: str, check: bool = True) -> CompletedProcess[str]:
        """`podman WORDS`."""
        command = ("env", f"CONTAINERS_CONF={self._conf}", "podman", "--root",
                   str(self._folder / "storage"), "--runroot", "/run/podman")  # fmt: skip
        return self.node.run(*command, *words, check=check, timeout=90)

    def run(self, *command: str, check: bool = True) -> CompletedProcess[str]:
        """One command in a container that ends with it."""
        return self._run(("--rm",), command, check)

    def start(self, name: str, *command: str) -> None:
        """A container that goes on."""
        self._run(("-d", "--name", name), command, True)

    def ips(self, name: str) -> list[str]:
        """A container's addresses, IPv4 first."""
        (found,) = json.loads(self("inspect", name).stdout)
        network = found["NetworkSettings"]["Networks"][NETWORK]
        return [network["IPAddress"], network["GlobalIPv6Address"]]

    def inside(self, name: str) -> Namespace:
        """A running container's network."""
        (found,) = json.loads(self("inspect", name).stdout)
        pid = found["State"]["Pid"]
        inode = Path(f"/proc/{pid}/ns/net").stat().st_ino
        return Namespace(name, pid, start_time(pid) or 0, inode, own_files=False)

    def fetch(self, name: str, ip: str, check: bool = True) -> str:
        """What the container `name` reads from the web server at an address."""
        # Debian's static busybox has a wget that crashes.
        command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 {ip} 80"
        answer = self("exec", name, "sh", "-c", command, check=check).stdout
        return answer.rpartition("\n\n")[2] or answer.rpartition("\r\n\r\n")[2]

    def remove_all(self) -> None:
        self("rm", "-a", "-f", "-t", "0", check=False)

    def _run(
        self, options: tuple[str, ...], command: tuple[str, ...], check: bool
    ) -> CompletedProcess[str]:
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
        return self("run", *options, *limits, "--network", NETWORK, "--rootfs",
                    os.fspath(self._root), *command, check=check)  # fmt: skip
