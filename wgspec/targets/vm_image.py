"""Kernel and initramfs of the micro-VM, made from Debian's packages and kept in a cache.

The kernel comes from the distribution's package (downloaded, not installed), with the
modules that WireGuard and the network card need.  The initramfs holds busybox, `wg`, `ip`,
this machine's Python with the few modules the agent imports, and the agent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from wgspec.rights import as_root
from wgspec.target import Unavailable

META_PACKAGES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""Debian's packages that depend on the newest kernel of a series."""
TOOLS = ("busybox", "wg", "ip")
PACKAGES = ("busybox-static", "cpio", "kmod", "wireguard-tools", "iproute2")
MODULES = ("virtio_pci", "virtio_net", "veth", "wireguard")
AGENT = Path(__file__).with_name("guest.py")

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd/0 /dev/stdin
for module in $(cat /modules/order); do
    insmod /modules/$module || echo "insmod $module failed"
done
for knob in all default; do
    echo 0 > /proc/sys/net/ipv6/conf/$knob/accept_dad
    echo 0 > /proc/sys/net/ipv6/conf/$knob/autoconf
    echo 0 > /proc/sys/net/ipv6/conf/$knob/router_solicitations
done
# By path: busybox would take its own ip.
/bin/ip link set lo up
for word in $(cat /proc/cmdline); do
    case $word in wgspec.address=*) /bin/ip addr add ${word#*=} dev eth0;; esac
done
/bin/ip link set eth0 up
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
export PATH=/bin PYTHONHOME=@HOME@ PYTHONDONTWRITEBYTECODE=1
@PYTHON@ -S /agent.py
poweroff -f
"""


class Image(NamedTuple):
    """What qemu boots."""

    kernel: Path
    initramfs: Path
    release: str


def cache_folder() -> Path:
    """Where kernels and images are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wgpy" / "microvm"


def _run(*command: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(command, capture_output=True, cwd=cwd, input=stdin, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:4])}: {done.stderr.decode().strip()}")
    return done.stdout


def prepare(series: str) -> Image:
    """The newest kernel of a series (6.1, 6.12) and its initramfs; raises `Unavailable`."""
    if series not in META_PACKAGES:
        raise Unavailable(f"no kernel series {series!r}: {', '.join(META_PACKAGES)}")
    for tool in ("apt-get", "dpkg-deb", "cpio", "depmod", "modprobe", *TOOLS):
        if shutil.which(tool) is None:
            install = as_root("apt-get", "install", *PACKAGES)
            raise Unavailable(f"{tool} is missing (try `{install}`)")
    package = _package(series)
    folder = cache_folder() / package
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another run may be preparing the same one.
        return _prepared(package, folder)


def _prepared(package: str, folder: Path) -> Image:
    if not (folder / "root").is_dir():
        _download(package, folder)
    kernel = next((folder / "root" / "boot").glob("vmlinuz-*"))
    release = kernel.name.removeprefix("vmlinuz-")
    stamp = hashlib.sha256(AGENT.read_bytes() + _INIT.encode() + sys.version.encode()).hexdigest()
    initramfs = folder / f"initramfs-{stamp[:16]}.gz"
    if not initramfs.exists():
        _build(folder / "root", release, initramfs)
    return Image(kernel, initramfs, release)


def _package(series: str) -> str:
    """The newest kernel package of the series that apt knows; else a cached one."""
    depends = _run("apt-cache", "depends", META_PACKAGES[series]).decode()
    found = re.search(rf"Depends: (linux-image-{re.escape(series)}[.\d]*\S*-cloud-amd64)", depends)
    if found:
        return found[1]
    cached = sorted(cache_folder().glob(f"linux-image-{series}.*"))
    if cached:
        return cached[-1].name
    update = as_root("apt-get", "update")
    raise Unavailable(f"apt offers no {META_PACKAGES[series]} (try `{update}` first)")


def _download(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        place = Path(temporary)
        # As root apt would drop to a user that may not write here.
        _run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=place)
        archive = next(place.glob("*.deb"))
        _run("dpkg-deb", "-x", str(archive), str(place / "root"))
        modules = place / "root" / "lib" / "modules"
        _run("depmod", "-b", str(place / "root"), next(modules.iterdir()).name)
        archive.unlink()
        (place / "root").rename(folder / "root")


def _module_files(root: Path, release: str) -> list[Path]:
    """Modules in the order in which they must be loaded."""
    files: dict[Path, None] = {}
    for name in MODULES:
        shown = _run("modprobe", "-d", str(root), "-S", release, "--show-depends", name).decode()
        for line in shown.splitlines():
            if line.startswith("insmod "):
                files[Path(line.split()[1])] = None
    return list(files)


def _python_files() -> tuple[str, str, list[Path]]:
    """Interpreter, its home, and every file that the agent's imports load."""
    python = getattr(sys, "_base_executable", sys.executable)
    imports = [
        line for line in AGENT.read_text().splitlines() if line.startswith(("import ", "from "))
    ]
    script = "\n".join(
        [
            *imports,
            "import sys, json, encodings.idna, encodings.utf_8, encodings.ascii, site",
            "files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', 0)]",
            "maps = [l.split()[-1] for l in open('/proc/self/maps') if '.so' in l]",
            "print(json.dumps([sys.base_prefix, files + sorted(set(maps))]))",
        ]
    )
    home, files = json.loads(_run(python, "-S", "-c", script).decode())
    linked = re.findall(r"(/\S+)", _run("ldd", python).decode())
    real = [Path(name) for name in [python, *files, *linked] if Path(name).exists()]
    landmark = Path(json.__file__).parents[1] / "os.py"
    return python, home, [*dict.fromkeys([*real, landmark])]


def _build(root: Path, release: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        tree = Path(temporary)
        for name in ("bin", "modules"):
            (tree / name).mkdir()
        order = []
        for module in _module_files(root, release):
            name = module.name.removesuffix(".xz")
            data = module.read_bytes()
            (tree / "modules" / name).write_bytes(
                lzma.decompress(data) if module.suffix == ".xz" else data
            )
            order.append(name)
        (tree / "modules" / "order").write_text("\n".join(order) + "\n")
        for tool in TOOLS:
            path = Path(shutil.which(tool) or tool).resolve()
            _copy(path, tree, tree / "bin" / tool)
            for library in re.findall(r"(/\S+)", _ldd(path)):
                _copy(Path(library), tree)
        python, home, files = _python_files()
        for file in files:
            _copy(file, tree)
        shutil.copy(AGENT, tree / "agent.py")
        init = tree / "init"
        init.write_text(_INIT.replace("@PYTHON@", python).replace("@HOME@", home))
        init.chmod(0o755)
        names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
        archive = _run("cpio", "-o", "-H", "newc", "--quiet", cwd=tree, stdin=names.encode())
        packed = subprocess.run(["gzip", "-1"], input=archive, capture_output=True, check=True)
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(packed.stdout)
        partial.rename(target)


def _ldd(path: Path) -> str:
    """What a program is linked with; nothing for a static one."""
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _copy(file: Path, tree: Path, to: Path | None = None) -> None:
    """Copy a file to the same place below `tree`, links resolved."""
    target = to or tree / str(file).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(file.resolve(), target)
        target.chmod(0o755)
