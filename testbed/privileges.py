"""Whether this process may create namespaces and TUN devices, and if not, what to do.

There are three cases: root may; without root an unprivileged user namespace often gives the
same rights over its own network (`reexecute` restarts the program inside one); if neither
works, the demo falls back to the simulator and everything else says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from wgpy import typed
from wgpy.linux.tun import why_not_openable
from wgpy.programs import python_module

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_INSIDE = "WGPY_TESTBED_USER_NAMESPACE"
STATE_VARIABLE = "WGPY_TESTBED_STATE"
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--")

TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
"""Programs the testbed runs, and the Debian packages that hold them."""


SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


def complete_path() -> None:
    """A plain user's PATH often lacks the folders where ip and nft are."""
    path = os.environ.get("PATH", "")
    if not path.endswith(SBIN):
        os.environ["PATH"] = path + SBIN


def missing_tools(names: Sequence[str] = tuple(TOOLS)) -> list[str]:
    """The packages whose programs are not on the PATH."""
    return sorted({TOOLS[name] for name in names if find_tool(name) is None})


def find_tool(name: str) -> str | None:
    """Where a program is; the sbin folders count even when the PATH leaves them out."""
    return shutil.which(name, path=os.environ.get("PATH", "") + SBIN)


def privileged() -> bool:
    """Whether this process may make network namespaces here."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> _CAP_NET_ADMIN & 1 and effective >> _CAP_SYS_ADMIN & 1)
    return False


def user_namespaces() -> bool:
    """Whether an unprivileged user namespace can be made that can have networks."""
    if find_tool("unshare") is None:
        return False
    script = "mount -t tmpfs tmpfs /run && ip link add v0 type veth peer name v1"
    return not subprocess.run(
        [*_UNSHARE, "sh", "-c", script], capture_output=True, check=False
    ).returncode


def inside_user_namespace() -> bool:
    """Whether `reexecute` brought this process here."""
    return _INSIDE in os.environ


def explain() -> str:
    """Why a cluster is not possible here, and what to do about it; empty if it is."""
    missing = missing_tools()
    if missing:
        install = typed.as_root("apt-get", "install", *missing)
        return f"programs are missing: `{install}`"
    if reason := why_not_openable():
        return reason
    if not privileged() and not user_namespaces():
        allow = typed.as_root("sysctl", "-w", "kernel.unprivileged_userns_clone=1")
        return (
            "not root, and unprivileged user namespaces are not allowed: "
            f"`{typed.again_as_root()}`, or `{allow}`"
        )
    return ""


def state_folder() -> Path:
    """Where running clusters are registered; stays the same inside the user namespace."""
    named = os.environ.get(STATE_VARIABLE)
    if named:
        return Path(named)
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run/wgpy-testbed")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "wgpy-testbed"
    return Path(f"/tmp/wgpy-testbed-{os.getuid()}")


def own_arguments() -> list[str]:
    """The command line that starts this program with the same arguments again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return python_module(spec.name, *sys.argv[1:])
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), *sys.argv]


def reexecute(into: int | None = None) -> NoReturn:
    """Start this program again in a user namespace of its own, or in that of process `into`."""
    complete_path()
    environment = {
        **os.environ,
        _INSIDE: "1",
        STATE_VARIABLE: str(state_folder()),
    }
    if into is None:
        command = [*_UNSHARE, *own_arguments()]
    else:
        enter = ["nsenter", "-t", str(into), "--user", "--preserve-credentials", "--"]
        command = [*enter, *own_arguments()]
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def require(into: int | None = None) -> None:
    """Return if this process may create clusters; else re-execute it where it may.

    Raises `PermissionError` with the fix if that is not possible.
    """
    complete_path()
    if reason := explain():
        raise PermissionError(reason)
    if not privileged():
        if inside_user_namespace():
            raise PermissionError("the user namespace gives no rights over networks")
        reexecute(into)
