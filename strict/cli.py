"""Strict mode: the routing table in front of the tunnel, its agent and its queries.

Queries go directly to the data plane's control socket and also work while no agent runs.
This module only parses and prints.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from strict.client import StrictClient
from wgpy.control.client import ControlFailed
from wgpy.sockets import CONTROL, answering, socket_path

F = TypeVar("F", bound=Callable[..., Any])
_FOLDER = click.Path(file_okay=False, path_type=Path)


def _complete_interface(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Shell completion: names of interfaces with a control socket."""
    with suppress(OSError):
        return [name for name in answering(CONTROL) if name.startswith(incomplete)]
    return []


def interface_option(function: F) -> F:
    """``--interface``, optional when this network namespace has just one."""
    return click.option(
        "-i",
        "--interface",
        envvar="WGPY_INTERFACE",
        shell_complete=_complete_interface,
        help="Interface to ask (default: the only one here with a control socket).",
    )(function)


def json_option(function: F) -> F:
    """``--json``, as parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        function
    )


@contextmanager
def asking(interface: str | None) -> Iterator[StrictClient]:
    """A connection to the data plane; its errors become messages."""
    try:
        with StrictClient(interface or _only_interface()) as client:
            yield client
    except ControlFailed as error:
        raise click.ClickException(str(error)) from error
    except TimeoutError:
        raise click.ClickException("the data plane does not answer") from None


def _only_interface() -> str:
    here = {name for _, name in socket.if_nameindex()}
    running = [name for name in answering(CONTROL) if name in here]
    found = [name for name in running if _is_strict(name)] if len(running) > 1 else running
    if len(found) == 1:
        return found[0]
    if not found:
        raise click.ClickException(
            "no interface of this network namespace runs a strict policy: "
            f"{StrictClient.how_to_start()}"
        )
    raise click.UsageError(f"several interfaces run here: choose one of {', '.join(found)} with -i")


def _is_strict(interface: str) -> bool:
    """Whether the policy is this one; an interface that does not answer counts, for its error."""
    try:
        with StrictClient(interface):
            return True
    except ControlFailed as error:
        return error.code != "policy"


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def strict() -> None:
    """Strict mode: encrypt traffic to known pods, drop the rest.

    `run` is the node's agent; `status`, `ipcache`, `node`, `explain` and `monitor` query the
    running data plane.
    """


@strict.command()
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The node's file (TOML or YAML).",
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics.")
@click.option("--metrics-address", default="127.0.0.1", show_default=True)
@click.option("--health-port", type=click.IntRange(1, 65535), help="Serve /healthz and /readyz.")
@click.option("--health-address", default="127.0.0.1", show_default=True)
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people on stderr, or one JSON object per line on stdout.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --log json.")
def run(
    path: Path,
    metrics_port: int | None,
    metrics_address: str,
    health_port: int | None,
    health_address: str,
    form: str,
    as_json: bool,
) -> None:
    """Run the agent: keep this node as its file, the cluster's file and etcd say, until SIGTERM.

    It leaves everything in place when it ends: traffic and strict mode continue without it.
    Under systemd it reports when it has joined, and feeds the watchdog.
    """
    from strict import supervision
    from strict.agent import Agent, AgentError
    from strict.cni.server import PodSource
    from strict.config import read_config
    from strict.document import DocumentRefused
    from strict.firewall import FirewallError
    from strict.notice import say, say_json
    from strict.routes import RoutingError
    from strict.sources import SourceMissing, open_sources

    try:
        config = read_config(path)
        pods = PodSource(config.node.interface)
        sources = [*open_sources(config), pods]
        agent = Agent(config, sources, say=say_json if as_json or form == "json" else say)
        pods.serve(agent)
        if health_port is not None:
            supervision.serve(agent, health_address, health_port)
        if metrics_port is not None:
            from strict.metrics import serve

            serve(agent, metrics_address, metrics_port)
    except (
        DocumentRefused, AgentError, SourceMissing, FirewallError, RoutingError, ValueError
    ) as error:  # fmt: skip
        raise click.ClickException(str(error)) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    systemd = supervision.Systemd()
    agent.run(systemd.beat)
    systemd.tell("STOPPING=1")


def node_file(function: F) -> F:
    """``--config``, a node's file that is there, as parameter ``path``."""
    return click.option(
        "--config",
        "path",
        required=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The node's file.",
    )(function)


@strict.command()
@node_file
@json_option
def down(path: Path, as_json: bool) -> None:
    """Remove this node's data plane, routes and, last, the backstop.

    Forwarding is reset to its state before the first agent ran.

    Stop the agent first, or it restores everything.
    """
    interface = _down(path)
    if as_json:
        show_json({"interface": interface, "down": True})
    else:
        click.echo(f"{interface} is down: its routes and nftables are removed")


def _down(path: Path) -> str:
    from strict.config import read_config
    from strict.document import DocumentRefused
    from strict.firewall import FirewallError
    from strict.leave import StillThere, take_down
    from strict.routes import RoutingError

    try:
        config = read_config(path)
        take_down(config)
    except (DocumentRefused, FirewallError, RoutingError, StillThere) as error:
        raise click.ClickException(str(error)) from error
    return config.node.interface


@strict.command()
@node_file
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=60.0, show_default=True,
    help="How long the others have to confirm.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Withdraw only; leave the node as it is.")
@click.option("--force", is_flag=True, help="Take it down even where not all have confirmed.")
@json_option
def drain(path: Path, seconds: float, keep: bool, force: bool, as_json: bool) -> None:
    """Leave the cluster: withdraw from etcd, wait until the others have seen it, take down.

    Stop the agent first, or it publishes the node again.
    """
    from strict.config import read_config
    from strict.document import DocumentRefused
    from strict.leave import StillThere
    from strict.leave import drain as withdraw
    from strict.single import AlreadyRuns

    try:
        from strict.discovery.etcd.store import StoreError
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'wgpy[etcd]'") from error
    try:
        config = read_config(path)
        missing = withdraw(config, seconds, lambda text: click.echo(text, err=True))
    except (DocumentRefused, StillThere, AlreadyRuns, StoreError) as error:
        raise click.ClickException(str(error)) from error
    done = not keep and (not missing or force)
    if done:
        _down(path)
    if as_json:
        show_json({"node": config.node.name, "withdrawn": True, "unconfirmed": missing,
                   "down": done})  # fmt: skip
    elif not missing:
        click.echo(f"{config.node.name} has left, and all others know{' it' if done else ''}")
    if missing:
        hint = "" if done or keep else "; the node is still up: try again, or add --force"
        raise click.ClickException(f"not confirmed by {', '.join(missing)}{hint}")


@strict.command()
@interface_option
@json_option
def status(interface: str | None, as_json: bool) -> None:
    """Show mode, key, port, peers, table, drops and the agent's problems."""
    from strict.firewall import Firewall
    from strict.show import show_status

    with asking(interface) as client:
        state = client.request("status")
        state["drops"] = client.request("counters")["drops"]
    firewall = Firewall(client.interface)
    state["backstop"] = {name: count._asdict() for name, count in firewall.counts().items()}
    state["backstop_verdict"] = firewall.verdict()
    state["agent"] = _agent(client.interface)
    if as_json:
        show_json(state)
    else:
        show_status(state)


def _agent(interface: str) -> dict[str, Any] | None:
    """What the running agent recorded; None if no agent runs."""
    try:
        found: dict[str, Any] = json.loads(socket_path(interface, ".agent").read_text())
    except (OSError, ValueError):
        return None
    return found if Path(f"/proc/{found['pid']}").exists() else None


@strict.group()
def ipcache() -> None:
    """Show which identity and node an address belongs to."""


@ipcache.command("list")
@interface_option
@json_option
def ipcache_list(interface: str | None, as_json: bool) -> None:
    """List all active entries."""
    with asking(interface) as client:
        _show_entries(client.stream("entries", "entries"), as_json)


@ipcache.command("get")
@click.argument("prefix")
@interface_option
@json_option
def ipcache_get(prefix: str, interface: str | None, as_json: bool) -> None:
    """Show all entries for exactly PREFIX, the active one first."""
    with asking(interface) as client:
        found = client.request("get", prefix=prefix)["entries"]
    if as_json or found:
        _show_entries(found, as_json)
    if not found:
        raise click.ClickException(f"no entry for {prefix} (`match` looks for shorter ones)")


@ipcache.command("match")
@click.argument("address")
@interface_option
@json_option
def ipcache_match(address: str, interface: str | None, as_json: bool) -> None:
    """Show how the table classifies ADDRESS: longest prefix, node, kind."""
    with asking(interface) as client:
        found = client.request("match", address=address)
    if as_json:
        show_json(found)
        return
    click.echo(f"kind          {found['kind']}")
    click.echo(f"entry         {' '.join(map(str, found['entry'])) if found['entry'] else '–'}")
    cidr = found["pod_cidr"]
    click.echo(f"pod CIDR      {cidr[0]} of node {cidr[1]}" if cidr else "pod CIDR      –")
    click.echo(f"address of    {found['node_address_of'] or '–'}")


def _show_entries(entries: Iterable[list[Any]], as_json: bool) -> None:
    """One line each, printed as they come (there may be half a million), in one JSON array."""
    if not as_json:
        for prefix, node, identity, encrypt, source in entries:
            word = "encrypt" if encrypt else "plain"
            click.echo(f"{prefix:<43} {node:<24} {identity:>8} {word:<8} {source}")
        return
    names = ("prefix", "node", "identity", "encrypt", "source")
    start = "[\n"
    for item in entries:
        click.echo(f"{start} {json.dumps(dict(zip(names, item, strict=True)))}", nl=False)
        start = ",\n"
    click.echo("[]" if start == "[\n" else "\n]")


@strict.group()
def node() -> None:
    """Show the nodes of the cluster."""


@node.command("list")
@interface_option
@json_option
def node_list(interface: str | None, as_json: bool) -> None:
    """List the known nodes, with key, addresses and pod CIDRs."""
    from strict.show import show_nodes

    with asking(interface) as client:
        nodes = list(client.stream("nodes", "nodes"))
        warnings = client.hello["policy"]["warnings"]
    if as_json:
        show_json({"nodes": nodes, "warnings": warnings})
    else:
        show_nodes(nodes, warnings)


@strict.group()
def cni() -> None:
    """Pods of this node, attached by a container runtime through `wgpy-cni`."""


def runtime_options(function: F) -> F:
    """``--network``, ``--config-dir``, ``--bin-dir``."""
    for name, default, kind, text in (
        ("--bin-dir", "/opt/cni/bin", _FOLDER, "Where the runtime looks for plugins."),
        ("--config-dir", "/etc/cni/net.d", _FOLDER, "Where the runtime reads networks."),
        ("--network", "wgpy", None, "The network's name."),
    ):
        function = click.option(
            name, default=default, show_default=True, type=kind, help=text
        )(function)
    return function


@contextmanager
def installing() -> Iterator[None]:
    """What stands in the way becomes a message."""
    from strict.cni.install import InstallRefused

    try:
        yield
    except InstallRefused as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@cni.command("install")
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The node's file.",
)
@click.option(
    "--pod-cidr",
    "ranges",
    multiple=True,
    help="Addresses for pods (default: the node's pod_cidrs of the cluster's file).",
)
@runtime_options
@json_option
def cni_install(
    path: Path,
    ranges: tuple[str, ...],
    network: str,
    config_dir: Path,
    bin_dir: Path,
    as_json: bool,
) -> None:
    """Write the network's configuration, and link the plugin where the runtime looks."""
    from strict.cni.install import conflist, install, own_ranges
    from strict.config import read_config
    from strict.discovery.static import exact_prefix
    from strict.document import DocumentRefused

    try:
        config = read_config(path)
        chosen = [exact_prefix(text) for text in ranges] or own_ranges(config)
    except (DocumentRefused, ValueError) as error:
        raise click.ClickException(str(error)) from error
    with installing():
        done = install(conflist(network, config.node.interface, chosen), config_dir, bin_dir)
    _show_paths(done, "written", as_json)


@cni.command("uninstall")
@runtime_options
@json_option
def cni_uninstall(network: str, config_dir: Path, bin_dir: Path, as_json: bool) -> None:
    """Remove both.  Pods that run keep their network; their DEL needs the plugin."""
    from strict.cni.install import uninstall

    with installing():
        done = uninstall(network, config_dir, bin_dir)
    _show_paths(done, "removed", as_json)


def _show_paths(paths: list[Path], verb: str, as_json: bool) -> None:
    if as_json:
        show_json({verb: [str(path) for path in paths]})
    else:
        click.echo("\n".join(f"{path}: {verb}" for path in paths) or "nothing was installed")


@strict.command()
@click.argument("source", required=False)
@click.argument("destination", required=False)
@click.option("--source-port", type=click.IntRange(0, 65535), default=0, help="TCP, for row 9.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="TCP, for row 9.")
@click.option("--matrix", "whole", is_flag=True, help="All traffic classes in the running mode.")
@interface_option
@json_option
def explain(
    source: str | None,
    destination: str | None,
    source_port: int,
    port: int,
    whole: bool,
    interface: str | None,
    as_json: bool,
) -> None:
    """Show which row of the verdict table decides on SOURCE to DESTINATION, and what is missing."""
    from strict.show import show_decision, show_matrix

    if whole == bool(source and destination):
        raise click.UsageError("give SOURCE and DESTINATION, or --matrix")
    with asking(interface) as client:
        if whole:
            show_matrix(client, as_json)
            return
        decision = client.request(
            "explain",
            source=source,
            destination=destination,
            source_port=source_port,
            destination_port=port,
        )
    if as_json:
        show_json(decision)
    else:
        show_decision(str(source), str(destination), decision)


@strict.command()
@click.option("--verdicts", is_flag=True, help="Also print the verdict of each new flow.")
@click.option("--seconds", type=float, help="Stop after this many seconds.")
@interface_option
@json_option
def monitor(
    verdicts: bool, seconds: float | None, interface: str | None, as_json: bool
) -> None:
    """Print a line per dropped packet, with its 5-tuple and the reason, as it happens."""
    with asking(interface) as client:
        client.subscribe("drops", *(["verdicts"] if verdicts else []))
        try:
            for event in client.events(seconds):
                click.echo(json.dumps(event) if as_json else _line(event))
        except KeyboardInterrupt:
            sys.exit(130)


def _line(event: Mapping[str, Any]) -> str:
    if event["event"] == "lost":
        return f"… {event['count']} events lost: this terminal reads too slowly"
    moment = time.strftime("%H:%M:%S", time.localtime(event["time"] // 10**9))
    moment += f".{event['time'] // 10**6 % 1000:03d}"
    flow = f"{_end(event, 'source')} → {_end(event, 'destination')}"
    if event["event"] == "verdict":
        missing = f"; missing: {event['missing']}" if event["missing"] else ""
        return f"{moment} {event['outcome']:<9} {flow} rule {event['rule']}: " \
               f"{event['sentence']}{missing}"
    protocol = event["protocol"] or "not IP"
    return f"{moment} DROP {event['reason']} {event['direction']} {protocol} {flow}, " \
           f"{event['size']} bytes: {event['sentence']}"


def _end(event: Mapping[str, Any], side: str) -> str:
    address, port = event[side], event.get(f"{side}_port")
    if address is None:
        return event.get("endpoint") or "?"
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
