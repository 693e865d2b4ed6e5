"""Generated files through wg-quick, `wg` and `ip`, and through our reader: the same comes out.

What differs on purpose is on the list of docs/wg-quick.md, and the list is tried here.
``WGPY_DIFFERENTIAL=20000`` (or ``make differential``) tries more files, from another seed
each time; the seed is in the message of a failure, and ``WGPY_SEED`` sets it.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.netns import Lab, Namespace
from tests.text import mutations, wg_quick
from tests.text.test_against_wg import Interface
from wgpy.cli.config import routing_tables
from wgpy.config import Config, ConfigError, HostPort, parse_config
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.engine import Engine
from wgpy.protocol.settings import DeviceChange
from wgpy.uapi import format_get, parse_set

pytestmark = pytest.mark.root

PAGE: Final = Path(__file__).parents[2] / "docs" / "wg-quick.md"
COUNT: Final = int(os.environ.get("WGPY_DIFFERENTIAL", "400"))
_NEW_SEED: Final = "1" if COUNT <= 400 else os.urandom(4).hex()
SEED: Final = int(os.environ.get("WGPY_SEED", _NEW_SEED), 16)
ROUTE: Final = "203.0.113.0/24"


class Kernel:
    """What `ip` makes of a value, asked once for each."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        self._namespace = namespace
        self._device = device
        self.address = functools.cache(self._address)
        self.mtu = functools.cache(self._mtu)
        self.table = functools.cache(self._table)

    def _ip(self, *words: str) -> bool:
        return self._namespace.run("ip", *words, check=False).returncode == 0

    def _json(self, line: str) -> list[dict[str, object]]:
        return list(json.loads(self._namespace.ip(f"-j {line}") or "[]"))

    def _address(self, text: str) -> str | None:
        """ADDRESS/LENGTH, None if refused."""
        self._ip("address", "flush", "dev", self._device)
        family = "-6" if ":" in text else "-4"
        if not self._ip(family, "address", "add", text, "dev", self._device):
            return None
        (link,) = self._json(f"{family} address show dev {self._device} scope global")
        (info,) = link["addr_info"]
        return f"{info['local']}/{info['prefixlen']}"

    def _mtu(self, text: str) -> int | None:
        if not text:
            return None
        if not self._ip("link", "set", "mtu", text, "dev", self._device):
            return -1
        mtu = self._json(f"link show dev {self._device}")[0]["mtu"]
        self._ip("link", "set", "mtu", "1500", "dev", self._device)
        return int(str(mtu))

    def _table(self, text: str) -> int | str | None:
        if text in ("", "auto", "off"):
            return text or "auto"
        where = (ROUTE, "dev", self._device, "table", text)
        if not self._ip("-4", "route", "add", *where):
            return None
        routes = self._json(f"-N route show table all {ROUTE}")
        self._ip("-4", "route", "del", *where)
        return int(routes[0].get("table", 254))


@pytest.fixture
def kernel(lab: Lab) -> Kernel:
    left, right = lab.namespace("left"), lab.namespace("right")
    device, _ = lab.veth(left, right)
    return Kernel(left, device)


@pytest.fixture
def interface(lab: Lab) -> Iterator[Interface]:
    made = Interface(lab.interface())
    yield made
    made.close()


def resolve(there: HostPort) -> Endpoint:
    """As `wg` does, for numbers and localhost; raises OSError."""
    flags = 0 if there.host.lower() == "localhost" else socket.AI_NUMERICHOST
    found = socket.getaddrinfo(there.host, there.port, type=socket.SOCK_DGRAM, flags=flags)
    family, _, _, _, address = found[0]
    host = str(address[0]).partition("%")[0]
    return Endpoint(socket.inet_pton(family, host), there.port)


def device_after(change: DeviceChange) -> list[str]:
    """The device that a change makes, as lines; the order of peers means nothing."""
    engine = Engine(crypto=backend(), entropy=os.urandom, now=0, wall=0)
    engine.set_up(False, now=0)
    engine.apply(change, now=0)
    blocks = format_get(engine.snapshot()).removesuffix("errno=0\n\n").split("public_key=")
    return [blocks[0], *sorted(blocks[1:])]


def ours(raw: bytes) -> Config | None:
    """The configuration, None if refused."""
    try:
        text = raw.decode(errors="surrogateescape")
        config = parse_config(text, tables=routing_tables())
        config.change(resolve)
    except (ConfigError, OSError, UnicodeError):
        return None
    return config


def theirs(quick: wg_quick.Quick | None, kernel: Kernel) -> dict[str, object] | None:
    """The fields of wg-quick's own keys, None if it, `wg` or `ip` refuses."""
    if quick is None or not quick.set:
        return None
    addresses = [kernel.address(text) for text in quick.arrays["ADDRESSES"]]
    mtu, table = kernel.mtu(quick.mtu), kernel.table(quick.table)
    if None in addresses or mtu == -1 or table is None:
        return None
    hooks = {name.lower(): [h for h in quick.arrays[name] if h] for name in wg_quick.ARRAYS[3:]}
    dns = sorted(quick.arrays["DNS"] + quick.arrays["DNS_SEARCH"])
    found = {"addresses": addresses, "mtu": mtu, "table": table, "dns": dns}
    return found | {"save_config": quick.save_config} | hooks


def fields_of(config: Config) -> dict[str, object]:
    hooks = {name: list(getattr(config, name)) for name in map(str.lower, wg_quick.ARRAYS[3:])}
    return hooks | {
        "addresses": [str(address) for address in config.addresses],
        "mtu": config.mtu,
        "table": config.table,
        "dns": sorted(config.dns),
        "save_config": config.save_config,
    }


def _line(pattern: str) -> Callable[[str], bool]:
    """Whether a line is so, without its blanks and remark."""
    compiled = re.compile(pattern, re.IGNORECASE)

    def found(text: str) -> bool:
        lines = (re.sub(r"#.*|\s*(=)\s*|\s+$", r"\1", line) for line in text.split("\n"))
        lines = (re.sub(r"\s+", ",", line.strip()) for line in lines)
        return any(compiled.fullmatch(line) for line in lines)

    return found


_ADDRESS: Final = r"(\d+\.\d+\.\d+\.\d+|[\da-f.]*:[\da-f.:]*)(/(0|[1-9][\d.]*))?"

STRICTER: Final[dict[str, Callable[[str], bool]]] = {
    "no [Interface]": lambda text: not _line(r"\ufeff?\[interface\]")(text),
    "a port out of range": _line(r"(listenport=|endpoint=.*:)\+?(\d{5,}|0+)"),
    "a short IPv4 address": _line(r"endpoint=\[?[\d.]+\]?:.+"),
    "a word for a line": _line(r"(dns|preup|postup|predown|postdown)"),
    "`ip`'s shorthands": _line(rf"address=(?!({_ADDRESS},?)*$).*"),
}
MORE_LENIENT: Final[dict[str, Callable[[str], bool]]] = {
    "nothing in AllowedIPs": _line(r"allowedips=(|.*,,.*|,.*|.*,)"),
    "a byte order mark": lambda text: text.startswith("\ufeff"),
    "a blank in [Interface]": lambda text: bool(
        [m for m in re.findall(r"^\s*(\[[^\]\n#]*\])", text, re.MULTILINE)
         if re.sub(r"\s", "", m).lower() == "[interface]" != m.lower()]
    ),
    "Off and Auto": _line(r"table=(off|auto|unspec|default|main|local)"),
    "0X in FwMark": _line(r"fwmark=0X.+"),
}


def compare(raw: bytes, config: Config | None, quick: dict[str, object] | None) -> str:
    """What is wrong, empty if nothing is."""
    text = raw.decode(errors="surrogateescape")
    if (config is None) != (quick is None):
        excuses = STRICTER if config is None else MORE_LENIENT
        if any(applies(text) for applies in excuses.values()):
            return ""
        return "refused here" if config is None else "refused there"
    if config is not None and fields_of(config) != quick:
        return f"here {fields_of(config)}, there {quick}"
    return ""


def test_the_same_files_mean_the_same(
    interface: Interface, kernel: Kernel, tmp_path: Path
) -> None:
    generator = random.Random(SEED)
    agreed = 0
    for start in range(0, COUNT, 400):
        texts = [mutations.file(generator) for _ in range(min(400, COUNT - start))]
        agreed += _try(texts, interface, kernel, tmp_path)
    assert agreed > COUNT // 10, "most files are refused: the generator makes too many mistakes"


def _try(texts: list[bytes], interface: Interface, kernel: Kernel, folder: Path) -> int:
    """Compare a batch; returns how many files both took."""
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"w{number}.conf")
        files[-1].write_bytes(text)
    interface.requests.clear()
    read = wg_quick.read(files, interface.name)
    requests = iter(interface.requests)
    agreed = 0
    for text, quick in zip(texts, read, strict=True):
        request = next(requests) if quick is not None and quick.set else None
        config, expected = ours(text), theirs(quick, kernel)
        wrong = compare(text, config, expected)
        if not wrong and config is not None and expected is not None and request is not None:
            agreed += 1
            if device_after(config.change(resolve)) != device_after(parse_set(request)):
                wrong = f"another device: there {request}"
        assert not wrong, f"seed {SEED:x}: {wrong}\n{text.decode(errors='backslashreplace')}"
    return agreed


# --- the list in the docs -------------------------------------------------------------

_ROW: Final = re.compile(
    r"\| ([^|]+) \| `([^|]+)` \| (accepted|refused) \| (accepted|refused) \| .+ \|"
)


def rows() -> list[tuple[str, str, str, str]]:
    """Name, lines, what wg-quick does, what we do."""
    found = (_ROW.match(line) for line in PAGE.read_text().splitlines())
    return [match.group(1, 2, 3, 4) for match in found if match]


def test_the_list_names_every_difference() -> None:
    assert [row[0] for row in rows()] == [*STRICTER, *MORE_LENIENT]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_list_is_true(
    row: tuple[str, str, str, str], interface: Interface, kernel: Kernel, tmp_path: Path
) -> None:
    name, lines, there, here = row
    text = lines.replace("\\n", "\n").replace("KEY", mutations.KEYS[1]).replace("BOM", "\ufeff")
    if "[" not in text:
        section = "[Interface]"
        if re.match(r"Endpoint|AllowedIPs", text):
            section = f"[Interface]\n[Peer]\nPublicKey = {mutations.KEYS[1]}"
        text = f"{section}\n{text}"
    file = tmp_path / "wg0.conf"
    file.write_text(text)
    quick = theirs(wg_quick.read([file], interface.name)[0], kernel)
    assert ("refused" if quick is None else "accepted", name) == (there, name)
    assert ("refused" if ours(text.encode()) is None else "accepted", name) == (here, name)
    excuses = STRICTER if here == "refused" else MORE_LENIENT
    assert excuses[name](text)
