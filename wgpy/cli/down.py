"""`wgpy down`: remove a tunnel, with everything that `wgpy up` did for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click

from wgpy.cli.common import complete_interface, echo_json, json_option, note, require_root
from wgpy.cli.dns import record_name
from wgpy.cli.files import CONFIG_FOLDER, interface_name, load
from wgpy.cli.quick import Tunnel, take_down
from wgpy.cli.undo import Ledger
from wgpy.config import INTERFACE_NAME
from wgpy.linux import uapi_client
from wgpy.linux.netlink import MAIN_TABLE, Network, Rule, family_of
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.settings import DeviceSnapshot


@click.command()
@click.argument("interface", shell_complete=complete_interface)
@click.option("-q", "--quiet", is_flag=True, help="Do not print the commands.")
@json_option
def down(interface: str, quiet: bool, as_json: bool) -> None:
    """Take a tunnel down.

    INTERFACE is its name, or the file that it was set up from.  This removes interface,
    addresses, routes, rules and packet filter, and runs the PreDown and PostDown hooks.
    """
    file = None
    if not INTERFACE_NAME.fullmatch(interface) or Path(interface).suffix == ".conf":
        file = Path(interface)
        interface = interface_name(file)
    require_root("taking an interface down")
    ledger = Ledger.load(interface) or _foreign(interface, file)
    take_down(Tunnel(interface, ledger, quiet or as_json))
    if as_json:
        echo_json({"interface": interface, "up": False})
    elif not quiet:
        click.echo(click.style(f"{interface} is down", fg="green"), err=True)


def _foreign(interface: str, file: Path | None) -> Ledger:
    """What to undo for an interface that another program set up."""
    device = uapi_client.get(interface)
    with Network() as network:
        if network.index(interface) is None:
            raise click.ClickException(f"{interface} is not in this network namespace")
        ledger = Ledger(interface)
        ledger.steps = [["rule", *rule] for rule in _rules(network, device)]
    ledger.steps += [["nft", *table] for table in _filters(interface)]
    ledger.steps += [["iptables", *rules] for rules in _iptables_rules(interface)]
    path = file or CONFIG_FOLDER / f"{interface}.conf"
    ledger.steps.append(["link", interface])
    if path.is_file():
        config = load(path)
        ledger.config = str(path.absolute())
        ledger.pre_down, ledger.post_down = config.pre_down, config.post_down
        if config.dns and shutil.which("resolvconf"):
            ledger.steps.append(["resolvconf", record_name(interface)])
    else:
        note(
            f"{path} does not exist: hooks are not run, and name servers that were set for"
            f" {interface} stay (resolvconf -d {record_name(interface)} -f); name its file to have"
            " them undone"
        )
    return ledger


def _filters(interface: str) -> list[tuple[str, str]]:
    """The packet filters that wg-quick creates for a full tunnel."""
    try:
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return []
    words = [line.split() for line in listed.stdout.splitlines()]
    return [(w[1], w[2]) for w in words if len(w) == 3 and w[2] == f"wg-quick-{interface}"]


def _iptables_rules(interface: str) -> list[tuple[str, str]]:
    """The same if wg-quick found no nft: rules with its comment, turned into deletions."""
    found = []
    for program in ("iptables", "ip6tables"):
        if shutil.which(f"{program}-save") is None:
            continue
        saved = subprocess.run([f"{program}-save"], capture_output=True, text=True, check=False)
        comment = f'-m comment --comment "wg-quick(8) rule for {interface}"'
        rules = [r for r in saved.stdout.splitlines() if r.startswith("-A ") and comment in r]
        if rules:
            kept = [
                f"-D{line[2:]}" if line in rules else line
                for line in saved.stdout.splitlines()
                if line in rules or line.startswith("*") or line == "COMMIT"
            ]
            found.append((program, "\n".join(kept) + "\n"))
    return found


def _rules(network: Network, device: DeviceSnapshot) -> list[Rule]:
    """Rules that send everything without the device's mark into the table of that number."""
    found: list[Rule] = []
    defaults = {ip for peer in device.peers for ip in peer.allowed_ips if ip.length == 0}
    for prefix in sorted(defaults, key=Prefix.__str__):
        rules = network.rules(family_of(prefix.ip))
        ours = [rule for rule in rules if rule.mark == rule.table == device.fwmark]
        # Each such rule came with one that keeps the main table's local routes in use.
        found += ours + [r for r in rules if r.mark is None and r.table == MAIN_TABLE][: len(ours)]
    return found
