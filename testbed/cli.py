"""Clusters of network namespaces on this machine: up, look, break, down.

`wgpy testbed …`: every command that changes or looks into namespaces first makes sure that
it may (`privileges.require`), which without root means to start again inside of the user
namespace that the cluster lives in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from testbed import catalogue, control, graph, privileges, sentinel
from testbed.classify import PLAINTEXT, Kind
from testbed.cluster import AGENT, DATA_PLANE, Cluster, ClusterError, registered
from testbed.dataplane import DataPlaneError, snapshot
from testbed.located import TopologyError
from testbed.namespaces import NamespaceError
from testbed.pcap import PcapWriter
from testbed.sniffer import Record

FAILURES = (
    ClusterError, control.ControlFailed, DataPlaneError, NamespaceError, TopologyError,
    PermissionError, TimeoutError, KeyError,
)  # fmt: skip

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
which = click.option("-c", "--cluster", "name", help="Which running cluster (one: no need).")


class _Group(click.Group):
    """Failures end the program with their sentence, not with a trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FAILURES as error:
            raise click.ClickException(str(error).strip("'\"")) from error


@click.group(cls=_Group)
def testbed() -> None:
    """Clusters of network namespaces on this machine: up, look, break, down."""


def _pick(name: str | None) -> Cluster:
    """The cluster meant; re-executes in its user namespace where needed."""
    running = registered()
    if name is None:
        if len(running) != 1:
            listed = ", ".join(running) or "none"
            raise ClusterError(f"which cluster? say -c NAME (running: {listed})")
        name = running[0]
    if not privileges.privileged():
        privileges.require(into=_holder(name))
    privileges.require()
    cluster = Cluster.load(name)
    if not cluster.alive():
        raise ClusterError(f"{name} is not alive any more: wgpy testbed down {name}")
    return cluster


def _holder(name: str) -> int | None:
    """A process inside the cluster, whose user namespace is the one to enter."""
    try:
        state = json.loads((privileges.state_folder() / name / "state.json").read_text())
    except OSError:
        return None
    return next((int(row["pid"]) for row in state["namespaces"].values()), None)


def _complete_lab(_ctx: object, _parameter: object, incomplete: str) -> list[str]:
    """Shell completion: names of labs."""
    return [lab.name for lab in catalogue.labs() if lab.name.startswith(incomplete)]


@testbed.command()
@click.argument("what", metavar="FILE|LAB", shell_complete=_complete_lab)
@click.option("--name", default="", help="Its name; the topology's, when left out.")
@as_json
def up(what: str, name: str, as_json: bool) -> None:
    """Bring a cluster up and leave it running."""
    topology = catalogue.topology_of(what)
    privileges.require()
    begin = time.monotonic()
    cluster = Cluster.up(topology, name=name, owned=False)
    subprocess.Popen(
        [sys.executable, "-m", "testbed.sentinel", cluster.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(cluster.folder / "sentinel.log").open("wb"),
        start_new_session=True,
    )
    seconds = time.monotonic() - begin
    if as_json:
        click.echo(json.dumps({"name": cluster.name, "seconds": round(seconds, 3)}))
        return
    click.echo(graph.as_text(topology, cluster.views))
    click.echo(f"\n{cluster.name} is up in {seconds:.1f} s.")
    click.echo("Next: wgpy testbed inspect | exec | capture | down")


@testbed.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All clusters.")
def down(name: str | None, everything: bool) -> None:
    """Take a cluster down; nothing of it stays."""
    running = registered()
    names = running if everything else [name] if name else running if len(running) == 1 else []
    if not names and (not everything):
        raise ClusterError(f"which cluster? (running: {', '.join(running) or 'none'})")
    for each in names:
        if not privileges.privileged():
            privileges.require(into=_holder(each))
        Cluster.load(each).down()
        click.echo(f"{each} is down")


@testbed.command()
@click.argument("name", required=False)
@as_json
def inspect(name: str | None, as_json: bool) -> None:
    """What runs, and what the sentinel has seen on the underlay."""
    cluster = _pick(name)
    described = _describe(cluster)
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    console = Console()
    table = Table(title=f"{cluster.name} ({cluster.topology.mode})", title_justify="left")
    for column in ("node", "addresses", "agent", "data plane", "peers", "handshakes"):
        table.add_column(column)
    for node in described["nodes"]:
        table.add_row(
            node["name"], "\n".join(node["addresses"]), str(node["agent"] or "–"),
            str(node["dataplane"] or "[red]none[/red]"), str(node["peers"]),
            str(node["handshakes"]),
        )  # fmt: skip
    console.print(table)
    seen = described["sentinel"].get("kinds", {})
    for kind in Kind:
        if seen.get(kind.name) and kind is not Kind.CANARY:
            colour = "red" if kind is Kind.POD_TO_POD else "default"
            console.print(f"  [{colour}]{seen[kind.name]:>8}[/{colour}]  {kind.value}")
    missed = described["sentinel"].get("missed", 0)
    console.print(f"  {missed:>8}  frames missed by the sentinel")


def _describe(cluster: Cluster) -> dict[str, Any]:
    nodes = []
    for node in cluster.topology.nodes:
        view = cluster.views.get(node.name)
        row: dict[str, Any] = {
            "name": node.name,
            "addresses": [str(address) for address in node.addresses],
            "pods": {pod.path: [str(a) for a in pod.addresses] for pod in node.pods},
            "agent": cluster.pid(node.name, AGENT),
            "dataplane": cluster.pid(node.name, DATA_PLANE),
            "unknown": sorted(view.hidden) if view else [],
            "peers": 0,
            "handshakes": 0,
        }
        if row["dataplane"] is not None:
            peers = snapshot(cluster.namespaces[node.name]).peers
            row["peers"] = len(peers)
            row["handshakes"] = sum(1 for peer in peers if peer.latest_handshake)
        nodes.append(row)
    return {
        "name": cluster.name,
        "mode": cluster.topology.mode,
        "folder": str(cluster.folder),
        "nodes": nodes,
        "sentinel": sentinel.read(cluster.folder),
    }


@testbed.command(name="graph")
@click.argument("what", metavar="FILE|LAB|CLUSTER", shell_complete=_complete_lab)
@click.option("--format", "form", type=click.Choice(["text", "dot", "svg"]), default="text")
def draw(what: str, form: str) -> None:
    """Draw a topology; of a running cluster also who has not discovered whom."""
    views = {}
    if what in registered():
        cluster = _pick(what)
        topology, views = cluster.topology, cluster.views
    else:
        topology = catalogue.topology_of(what)
    picture = {"text": graph.as_text, "dot": graph.as_dot, "svg": graph.as_svg}[form]
    click.echo(picture(topology, views))


@testbed.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@which
@click.argument("where", metavar="NODE|NODE/POD|world|underlay")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str | None, where: str, command: tuple[str, ...]) -> NoReturn:
    """Run a command in a namespace, as if one sat there."""
    cluster = _pick(name)
    if where not in cluster.namespaces:
        raise ClusterError(f"no {where!r} here: {', '.join(cluster.namespaces)}")
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = beside + os.pathsep + os.environ.get("PATH", "")
    sys.stdout.flush()
    arguments = [*cluster.namespaces[where].prefix(), *command]
    os.execvp(arguments[0], arguments)


@testbed.command()
@which
@click.option("--write", "file", type=click.Path(path_type=Path), help="Also write a pcap file.")
@click.option("--count", type=int, default=0, help="Stop after this many frames.")
@click.option("--seconds", type=float, default=0, help="Stop after this long.")
@click.option("--plaintext", is_flag=True, help="Only what an eavesdropper can read.")
@as_json
def capture(
    name: str | None, file: Path | None, count: int, seconds: float, plaintext: bool, as_json: bool
) -> None:
    """Show what is on the underlay, as an eavesdropper there sees it."""
    cluster = _pick(name)
    shown = 0
    wanted = PLAINTEXT if plaintext else (*PLAINTEXT, Kind.WIREGUARD)
    writer = PcapWriter(file) if file else None

    def on_record(record: Record) -> None:
        nonlocal shown
        if record.packet.kind not in wanted or (count and shown >= count):
            return
        shown += 1
        if writer is not None:
            writer.write(record.at, record.head, record.length)
        if as_json:
            click.echo(json.dumps(sentinel.describe(record)))
        else:
            colour = "green" if record.packet.kind is Kind.WIREGUARD else "red"
            click.echo(click.style(f"{record.packet.kind.value:<24}", fg=colour) + str(record))

    deadline = time.monotonic() + seconds if seconds else float("inf")
    with cluster.sniffer(on_record=on_record) as sniffer:
        try:
            while time.monotonic() < deadline and not (count and shown >= count):
                sniffer.drain()
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        sniffer.drain()
        if sniffer.missed:
            click.echo(f"{sniffer.missed} frames were missed", err=True)


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node; all nodes when left out.")
@click.argument("names", nargs=-1, required=True)
def publish(name: str | None, viewer: str | None, names: tuple[str, ...]) -> None:
    """Let the nodes discover nodes or pods (NODE, NODE/POD)."""
    _change(name, viewer, names, known=True)


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node; all nodes when left out.")
@click.argument("names", nargs=-1, required=True)
def withdraw(name: str | None, viewer: str | None, names: tuple[str, ...]) -> None:
    """Let the nodes forget nodes or pods."""
    _change(name, viewer, names, known=False)


def _change(name: str | None, viewer: str | None, names: tuple[str, ...], *, known: bool) -> None:
    cluster = _pick(name)
    possible = [*(node.name for node in cluster.topology.nodes),
                *(pod.path for pod in cluster.topology.pods)]  # fmt: skip
    for each in (*names, *([viewer] if viewer else [])):
        if each not in possible:
            raise ClusterError(f"no {each!r} here: {', '.join(possible)}")
    for node, view in cluster.views.items():
        if viewer in (None, node):
            others = [each for each in names if each != node]
            (view.show if known else view.hide)(*others)
            cluster.publish(node)
    cluster.save()


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node; all nodes when left out.")
@click.argument("word", metavar="default|strict", type=click.Choice(["default", "strict"]))
def mode(name: str | None, viewer: str | None, word: str) -> None:
    """Switch nodes to default or strict mode while they run."""
    cluster = _pick(name)
    nodes = [viewer] if viewer else [node.name for node in cluster.topology.nodes]
    for node in nodes:
        cluster.write_config(node, mode=word)
    for node in nodes:
        control.wait_mode(cluster, node, word)
    click.echo(f"{', '.join(nodes)}: {word} mode")


@testbed.command()
@which
@click.argument("node")
@click.argument("role", type=click.Choice([AGENT, DATA_PLANE]))
@click.option("--signal", "word", default="KILL", help="KILL, TERM, STOP, CONT …")
def kill(name: str | None, node: str, role: str, word: str) -> None:
    """Signal a node's agent or data plane (SIGKILL when not told otherwise)."""
    try:
        number = signal.Signals[f"SIG{word.upper().removeprefix('SIG')}"]
    except KeyError:
        raise ClusterError(f"no signal {word!r}") from None
    pid = _pick(name).kill(node, role, number)
    click.echo(f"{role} of {node} (process {pid}): {number.name}")


@testbed.command()
@which
@click.argument("node")
@click.argument("role", type=click.Choice([AGENT, DATA_PLANE]))
def start(name: str | None, node: str, role: str) -> None:
    """Start a node's agent or data plane again after it was killed."""
    cluster = _pick(name)
    if cluster.pid(node, role) is not None:
        raise ClusterError(f"the {role} of {node} is running")
    daemon = cluster.start_agent(node) if role == AGENT else cluster.start_data_plane(node)
    cluster.wait_ready(node)
    cluster.save()
    click.echo(f"{role} of {node} (process {daemon.pid}) is ready")


@testbed.command()
@click.argument("name", required=False, shell_complete=_complete_lab)
@click.option("--topology", is_flag=True, help="Print the lab's topology file instead.")
@as_json
def labs(name: str | None, topology: bool, as_json: bool) -> None:
    """List the labs, or read the page of one."""
    found = catalogue.labs()
    if name and topology:
        click.echo(catalogue.find(name).read_text(encoding="utf-8"), nl=False)
    elif name:
        page = next((lab.page for lab in found if lab.name == name), None)
        if page is None:
            raise ClusterError(f"no lab {name!r}: {', '.join(lab.name for lab in found)}")
        Console().print(Markdown(page.read_text(encoding="utf-8")))
    elif as_json:
        click.echo(json.dumps([{"name": lab.name, "title": lab.title,
                                "topology": str(lab.topology), "page": str(lab.page)}
                               for lab in found], indent=2))  # fmt: skip
    else:
        width = max((len(lab.name) for lab in found), default=0)
        for lab in found:
            click.echo(f"{lab.name:<{width}}  {lab.title}")
        click.echo("\nread one: wgpy testbed labs NAME   start one: wgpy testbed up NAME")
