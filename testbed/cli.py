"""Run clusters of network namespaces on this machine.

`wgpy testbed …`: every command that changes or reads namespaces first makes sure that it may
(`privileges.require`). Without root it restarts inside the user namespace of the cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from testbed import capture as recording
from testbed import catalogue, control, graph, privileges, sentinel
from testbed.classify import LEAKS, PLAINTEXT, Classifier, Kind, message_fields
from testbed.cluster import AGENT, DATA_PLANE, Cluster, ClusterError, registered
from testbed.dataplane import DataPlaneError, snapshot
from testbed.namespaces import NamespaceError
from testbed.sentinel import SentinelError
from testbed.sniffer import Record, SnifferBlind
from testbed.topology import LISTEN_PORT
from testbed.topology_file import TopologyError
from wgpy import typed

FAILURES = (
    ClusterError, control.ControlFailed, DataPlaneError, NamespaceError, SentinelError,
    SnifferBlind, TopologyError, KeyError,
)  # fmt: skip

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
which = click.option("-c", "--cluster", "name", metavar="NAME",
                     help="Which running cluster; not needed if there is only one.")  # fmt: skip
named = click.argument("argument", metavar="[NAME]", required=False)


def tell(as_json: bool, text: str, **facts: Any) -> None:
    """The result of a command: a sentence, or one JSON document."""
    click.echo(json.dumps(facts, indent=2) if as_json else text)


def _one_name(argument: str | None, name: str | None) -> str | None:
    """The cluster of NAME or of -c NAME."""
    if argument and name and argument != name:
        raise ClusterError(f"two clusters are named: {argument} and {name}")
    return argument or name


class _Group(click.Group):
    """Failures end the program with a message; `wgpy` itself words system errors."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FAILURES as error:
            raise click.ClickException(str(error).strip("'\"")) from error


@click.group(cls=_Group)
def testbed() -> None:
    """Run clusters of network namespaces on this machine."""


def _which(running: list[str]) -> str:
    if not running:
        up, labs = typed.wgpy("testbed", "up", "LAB"), typed.wgpy("testbed", "labs")
        return f"no cluster is running: start one with `{up}` (`{labs}` lists them)"
    return f"which cluster? use -c NAME (running: {', '.join(running)})"


def _pick(name: str | None) -> Cluster:
    """The selected cluster; re-executes in its user namespace if needed."""
    running = registered()
    if name is None:
        if len(running) != 1:
            raise ClusterError(_which(running))
        name = running[0]
    if not privileges.privileged():
        privileges.require(into=_holder(name))
    privileges.require()
    cluster = Cluster.load(name)
    if not cluster.alive():
        down = typed.wgpy('testbed', 'down', name)
        raise ClusterError(f"{name} is not running any more: `{down}`")
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
@click.option("--name", default="", help="Its name (default: the topology's).")
@as_json
def up(what: str, name: str, as_json: bool) -> None:
    """Start a cluster and leave it running."""
    topology = catalogue.topology_of(what)
    privileges.require()
    begin = time.monotonic()
    cluster = Cluster.up(topology, name=name, owned=False)
    try:
        sentinel.launch(cluster)
    except BaseException:
        _take_down(cluster)
        raise
    seconds = time.monotonic() - begin
    text = graph.as_text(topology, cluster.views)
    tell(as_json, f"{text}\n\n{cluster.name} is up in {seconds:.1f} s.\n"
         f"Next: {typed.wgpy('testbed')} inspect | exec | capture | down",
         name=cluster.name, seconds=round(seconds, 3))  # fmt: skip


def _take_down(cluster: Cluster) -> None:
    sentinel.end(cluster.folder)
    cluster.down()


@testbed.command()
@named
@which
@click.option("--all", "everything", is_flag=True, help="All clusters.")
@as_json
def down(argument: str | None, name: str | None, everything: bool, as_json: bool) -> None:
    """Remove a cluster completely."""
    running = registered()
    name = _one_name(argument, name)
    names = running if everything else [name] if name else running if len(running) == 1 else []
    if not names and not everything:
        raise ClusterError(_which(running))
    for each in names:
        if not privileges.privileged():
            privileges.require(into=_holder(each))
        _take_down(Cluster.load(each))
        if not as_json:
            click.echo(f"{each} is down")
    if as_json:
        tell(True, "", down=names)


@testbed.command()
@named
@which
@as_json
def inspect(argument: str | None, name: str | None, as_json: bool) -> None:
    """Show what runs, and what the sentinel has seen on the underlay.

    Exit status 1 if the sentinel is dead, late or receives nothing: the counts are then unknown.
    """
    cluster = _pick(_one_name(argument, name))
    trouble = ""
    try:
        seen: dict[str, Any] = sentinel.ask(cluster)
    except SentinelError as error:
        trouble, seen = str(error), {"error": str(error)}
    described = _describe(cluster) | {"sentinel": seen}
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        _show(described)
    if trouble:
        raise SentinelError(trouble)


def _show(described: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{described['name']} ({described['mode']})", title_justify="left")
    for column in ("node", "mode", "addresses", "agent", "data plane", "peers", "handshakes"):
        table.add_column(column, overflow="fold")
    for node in described["nodes"]:
        table.add_row(
            node["name"], node["mode"], "\n".join(node["addresses"]), str(node["agent"] or "–"),
            str(node["dataplane"] or "[red]none[/red]"), str(node["peers"]),
            str(node["handshakes"]),
        )  # fmt: skip
    console.print(table)
    for link in described["links"]:
        console.print("  {link}: {frames} frames, {lost} lost, {overflowed} over the queue"
                      .format(**link), soft_wrap=True)  # fmt: skip
    seen = described["sentinel"].get("kinds", {})
    for kind in Kind:
        if seen.get(kind.name) and kind is not Kind.CANARY:
            colour = "red" if kind in LEAKS else "default"
            console.print(f"  [{colour}]{seen[kind.name]:>8}[/{colour}]  {kind.value}")
    if "missed" in described["sentinel"]:
        console.print(f"  {described['sentinel']['missed']:>8}  frames missed by the sentinel")


def _describe(cluster: Cluster) -> dict[str, Any]:
    nodes = []
    for node in cluster.topology.nodes:
        view = cluster.views.get(node.name)
        row: dict[str, Any] = {
            "name": node.name,
            "mode": control.live_mode(cluster, node.name),
            "addresses": [str(address) for address in node.addresses],
            "pods": {pod.path: [str(a) for a in pod.addresses] for pod in node.pods},
            "agent": cluster.pid(node.name, AGENT),
            "dataplane": cluster.pid(node.name, DATA_PLANE),
            "unknown": sorted(view.hidden) if view else [],
            "peers": 0,
            "handshakes": 0,
        }
        if row["mode"] not in (control.NONE, control.SILENT):
            peers = snapshot(cluster.namespaces[node.name]).peers
            row["peers"] = len(peers)
            row["handshakes"] = sum(1 for peer in peers if peer.latest_handshake)
        nodes.append(row)
    return {
        "name": cluster.name,
        "mode": _common_mode([row["mode"] for row in nodes]),
        "folder": str(cluster.folder),
        "nodes": nodes,
        "links": cluster.link_counts(),
    }


def _common_mode(modes: list[str]) -> str:
    """The current mode, if all data planes that answer agree."""
    found = sorted(set(modes) - {control.NONE, control.SILENT})
    return found[0] if len(found) == 1 else "mixed" if found else control.NONE


@testbed.command(name="graph")
@click.argument("what", metavar="[FILE|LAB|CLUSTER]", required=False,
                shell_complete=_complete_lab)  # fmt: skip
@which
@click.option("--format", "form", type=click.Choice(["text", "dot", "svg"]), default="text",
              show_default=True)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the picture to a file.")  # fmt: skip
@as_json
def draw(
    what: str | None, name: str | None, form: str, output: Path | None, as_json: bool
) -> None:
    """Draw a topology; for a running cluster also what the nodes have not discovered."""
    views = {}
    if what is None or name is not None or what in registered():
        cluster = _pick(_one_name(what, name))
        modes = [control.live_mode(cluster, node.name) for node in cluster.topology.nodes]
        topology, views = replace(cluster.topology, mode=_common_mode(modes)), cluster.views
    else:
        topology = catalogue.topology_of(what)
    picture = {"text": graph.as_text, "dot": graph.as_dot, "svg": graph.as_svg}[form]
    drawn = json.dumps(graph.as_json(topology, views), indent=2) if as_json else picture(
        topology, views)  # fmt: skip
    if output is None:
        click.echo(drawn)
    else:
        output.write_text(drawn + "\n", encoding="utf-8")
        click.echo(f"written: {output}", err=True)


# Entering the mounts of a node leaves one in "/".
_STAY = ("sh", "-c", 'cd "$0" || exit 1; exec "$@"')


@testbed.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@which
@as_json
@click.argument("where", metavar="NODE|NODE/POD|world|underlay")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str | None, where: str, command: tuple[str, ...], as_json: bool) -> NoReturn:
    """Run a command in a namespace, in the current folder.

    Exit status: the command's.  Options of `exec` come before NODE; --json waits for the end
    of the command and prints its exit status and output.
    """
    cluster = _pick(name)
    if where not in cluster.namespaces:
        raise ClusterError(f"no {where!r} here: {', '.join(cluster.namespaces)}")
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = beside + os.pathsep + os.environ.get("PATH", "")
    arguments = [*cluster.namespaces[where].prefix(), *_STAY, str(Path.cwd()), *command]
    if as_json:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", check=False
        )
        tell(True, "", where=where, command=list(command), status=done.returncode,
             stdout=done.stdout, stderr=done.stderr)  # fmt: skip
        sys.exit(done.returncode)
    sys.stdout.flush()
    os.execvp(arguments[0], arguments)


@testbed.command()
@which
@click.argument("where", metavar="[NODE|LINK]", required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write a pcapng file, with the keys to decrypt it.")  # fmt: skip
@click.option("--count", type=click.IntRange(0), default=0, help="Stop after this many frames.")
@click.option("--seconds", type=click.FloatRange(0), default=0, help="Stop after this long.")
@click.option("--plaintext", is_flag=True, help="Show only what an eavesdropper can read.")
@as_json
def capture(
    name: str | None, where: str | None, output: Path | None, count: int, seconds: float,
    plaintext: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show the traffic on the underlay, as an eavesdropper sees it.

    NODE is a node's links; LINK is an underlay (lan) or one node's link to it (alpha.0).
    With -o, the keys of all data planes go into the file: Wireshark, tshark and
    `wgpy decrypt` open it decrypted.
    """
    cluster = _pick(name)
    shown = 0
    wanted = PLAINTEXT if plaintext else (*PLAINTEXT, Kind.WIREGUARD)
    classifier = Classifier(cluster.topology.pod_cidrs, (LISTEN_PORT,))
    deadline = time.monotonic() + seconds if seconds else float("inf")

    def more() -> bool:
        return time.monotonic() < deadline and not (count and shown >= count)

    def show(frame: recording.Frame) -> bool:
        nonlocal shown
        packet = classifier.classify(frame.data)
        if packet.kind not in wanted:
            return False
        shown += 1
        record = Record(frame.at, frame.port, packet, len(frame.data), frame.data)
        _print_frame(record, as_json)
        return True

    def ready() -> None:
        held = f"; {output} will contain secret keys" if output else ""
        click.echo(f"capturing, stop with Ctrl-C{held}", err=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    missed, without, logs = recording.run(cluster, where, output, show, more, ready)
    for node, why in without.items():
        click.echo(f"no keys of {node}: {why}", err=True)
    if output:
        click.echo(f"{output}: {shown} frames, {logs} key logs", err=True)
    if missed:
        raise SnifferBlind(f"{missed} frames were missed")


def _print_frame(record: Record, as_json: bool) -> None:
    index, counter = message_fields(record.packet, record.head)
    if as_json:
        row = sentinel.describe(record) | {"receiver_index": index, "counter": counter}
        click.echo(json.dumps(row))
        return
    at = time.strftime("%H:%M:%S", time.localtime(record.at // 10**9))
    colour = "green" if record.packet.kind is Kind.WIREGUARD else "red"
    words = "" if index is None else f" index {index:08x}"
    words += "" if counter is None else f" counter {counter}"
    kind = click.style(f"{record.packet.kind.value:<24}", fg=colour)
    click.echo(f"{at}.{record.at % 10**9 // 1000:06} {kind}{record}{words}")


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node (default: all nodes).")
@click.argument("names", nargs=-1, required=True, metavar="NODE|NODE/POD …")
@as_json
def publish(name: str | None, viewer: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """Make the nodes discover nodes or pods (NODE, NODE/POD)."""
    _change(name, viewer, names, known=True, as_json=as_json)


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node (default: all nodes).")
@click.argument("names", nargs=-1, required=True, metavar="NODE|NODE/POD …")
@as_json
def withdraw(name: str | None, viewer: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """Make the nodes forget nodes or pods."""
    _change(name, viewer, names, known=False, as_json=as_json)


def _change(
    name: str | None, viewer: str | None, names: tuple[str, ...], *, known: bool, as_json: bool
) -> None:
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
    if as_json:
        hidden = {node: sorted(view.hidden) for node, view in cluster.views.items()}
        tell(True, "", known=known, names=list(names), unknown=hidden)


@testbed.command()
@which
@click.option("--on", "viewer", help="Only on this node (default: all nodes).")
@click.argument("word", metavar="default|strict", type=click.Choice(["default", "strict"]))
@as_json
def mode(name: str | None, viewer: str | None, word: str, as_json: bool) -> None:
    """Switch nodes to default or strict mode while they run."""
    cluster = _pick(name)
    if cluster.topology.mode == "plain":
        raise ClusterError(f"{cluster.name} is plain WireGuard: it has neither table nor modes")
    known = [node.name for node in cluster.topology.nodes]
    if viewer is not None:
        _check_node(cluster, viewer)
    nodes = [viewer] if viewer else known
    for node in nodes:
        cluster.write_config(node, mode=word)
    for node in nodes:
        control.wait_mode(cluster, node, word)
    tell(as_json, f"{', '.join(nodes)}: {word} mode", nodes=nodes, mode=word)


@testbed.command()
@which
@click.argument("node")
@click.argument("role", type=click.Choice([AGENT, DATA_PLANE]))
@click.option("--signal", "word", default="KILL", metavar="NAME", show_default=True,
              help="KILL, TERM, STOP, CONT, …")  # fmt: skip
@as_json
def kill(name: str | None, node: str, role: str, word: str, as_json: bool) -> None:
    """Send a signal to a node's agent or data plane (default: SIGKILL)."""
    try:
        number = signal.Signals[f"SIG{word.upper().removeprefix('SIG')}"]
    except KeyError:
        raise ClusterError(f"no signal {word!r}") from None
    cluster = _pick(name)
    _check_node(cluster, node)
    pid = cluster.kill(node, role, number)
    tell(as_json, f"{role} of {node} (process {pid}): {number.name}",
         node=node, role=role, pid=pid, signal=number.name)  # fmt: skip


def _check_node(cluster: Cluster, node: str) -> None:
    known = [each.name for each in cluster.topology.nodes]
    if node not in known:
        raise ClusterError(f"no node {node!r} here: {', '.join(known)}")


@testbed.command()
@which
@click.argument("node")
@click.argument("role", type=click.Choice([AGENT, DATA_PLANE]))
@as_json
def start(name: str | None, node: str, role: str, as_json: bool) -> None:
    """Restart a node's agent or data plane after it was killed."""
    cluster = _pick(name)
    _check_node(cluster, node)
    if cluster.pid(node, role) is not None:
        raise ClusterError(f"the {role} of {node} is running")
    daemon = cluster.start_agent(node) if role == AGENT else cluster.start_data_plane(node)
    cluster.wait_ready(node)
    cluster.save()
    tell(as_json, f"{role} of {node} (process {daemon.pid}) is ready",
         node=node, role=role, pid=daemon.pid)  # fmt: skip


@testbed.command()
@click.argument("name", required=False, shell_complete=_complete_lab)
@click.option("--topology", is_flag=True, help="Print the lab's topology file instead.")
@as_json
def labs(name: str | None, topology: bool, as_json: bool) -> None:
    """List the labs, or show the page of one."""
    found = catalogue.labs()
    if name:
        found = [lab for lab in found if lab.name == name]
        if not found:
            known = ", ".join(lab.name for lab in catalogue.labs())
            raise ClusterError(f"no lab {name!r}: {known}")
    if as_json:
        click.echo(json.dumps([{"name": lab.name, "title": lab.title,
                                "topology": str(lab.topology), "page": str(lab.page)}
                               for lab in found], indent=2))  # fmt: skip
    elif name and topology:
        click.echo(found[0].topology.read_text(encoding="utf-8"), nl=False)
    elif name:
        Console().print(Markdown(found[0].page.read_text(encoding="utf-8")))
    else:
        width = max((len(lab.name) for lab in found), default=0)
        for lab in found:
            click.echo(f"{lab.name:<{width}}  {lab.title}")
        program = typed.wgpy("testbed")
        click.echo(f"\nread: {program} labs NAME   start: {program} up NAME")
