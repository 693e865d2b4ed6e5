"""Tables and colours of `wgpy strict`, for people; programs take --json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from strict.client import StrictClient
from strict.matrix import matrix
from strict.wire import config_from_wire

_COLOURS: Final = {
    "encrypted": "green",
    "local": "green",
    "delivered": "green",
    "dropped": "red",
    "plaintext": "yellow",
}

_BACKSTOP = {
    "drop": "drop pods' plaintext",
    "count": "count pods' plaintext without dropping it",
    "absent": "are missing: only the data plane drops",
}


def show_status(state: Mapping[str, Any]) -> None:
    """`status`."""
    policy, agent = state["policy"], state["agent"]
    config = policy["config"]
    rows = [
        ("interface", state["interface"]),
        ("link", f"{'up' if state['up'] else 'down'}, MTU {state['mtu']}"),
        ("mode", config["mode"] if config else "not loaded: nothing passes"),
        ("key", state["public_key"] or "none"),
        ("port", f"{state['listen_port']}, mark {state['fwmark']:#x}"),
        ("peers", state["peers"]),
        ("table", f"{policy['entries']} entries, {policy['nodes']} nodes, "
                  f"generation {policy['generation']}"),
    ]
    if config:
        rows.append(("pod CIDRs", ", ".join(config["pod_cidrs"])))
    if agent:
        rows.append(("node encryption", agent["node_encryption"]))
        rows.append(("agent", f"process {agent['pid']}, "
                              f"{'joined' if agent['joined'] else 'not all sources have synced'}"))
    else:
        rows.append(("agent", "is not running; traffic and strict mode continue without it"))
        if config:
            on = "Enabled" if config["node_encryption"] else "Disabled"
            rows.append(("node encryption", on))
    rows.append(("kernel's rules", _BACKSTOP[state["backstop_verdict"]]))
    for name, value in rows:
        click.echo(f"{name:<16} {value}")
    for title, content in (
        ("drops", state["drops"]),
        ("backstop", {name: count["packets"] for name, count in state["backstop"].items()}),
    ):
        for name, count in content.items():
            if count:
                click.echo(f"{title:<16} {name} {count}")
    troubles = [*policy["warnings"], *(agent["problems"].values() if agent else ())]
    for text in troubles:
        click.echo(click.style(f"problem          {text}", fg="yellow"))


def show_nodes(nodes: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> None:
    """`node list`: a block for each, so that nothing is cut or broken that one may copy."""
    for node in nodes:
        remarks = [
            "this node" if node["local"] else "",
            "OptedOut" if node["opted_out"] else "",
            "" if node["public_key"] else "no key yet: nothing can be encrypted to it",
        ]
        click.echo(click.style(node["name"], bold=True))
        for name, values in (
            ("key", [node["public_key"] or "–"]),
            ("addresses", node["addresses"]),
            ("pod CIDRs", node["pod_cidrs"] or ["–"]),
            ("remarks", list(filter(None, remarks))),
        ):
            for value in values:
                click.echo(f"  {name:<10} {value}")
                name = ""
    for text in warnings:
        click.echo(click.style(text, fg="yellow"))


def show_decision(source: str, destination: str, decision: Mapping[str, Any]) -> None:
    """`explain SRC DST`."""
    outcome = decision["outcome"]
    word = click.style(outcome, fg=_COLOURS.get(outcome), bold=True)
    reason = f" ({decision['reason']})" if decision["reason"] else ""
    click.echo(f"{source} ({decision['source_kind']}) → "
               f"{destination} ({decision['destination_kind']}): {word}{reason}")
    click.echo(f"rule     {decision['rule']}: {decision['sentence']}")
    if decision["entry"]:
        click.echo(f"entry    {' '.join(map(str, decision['entry']))}")
    if decision["pod_cidr"]:
        click.echo(f"pod CIDR {decision['pod_cidr']}")
    if decision["node"]:
        click.echo(f"node     {decision['node']}")
    if decision["missing"]:
        click.echo(f"missing  {decision['missing']}")


def show_matrix(client: StrictClient, as_json: bool) -> None:
    """`explain --matrix`."""
    settings = client.hello["policy"]["config"]
    if settings is None:
        raise click.ClickException("the table is not loaded yet: nothing passes")
    nodes = client.stream("nodes", "nodes")
    opted_out = any(node["local"] and node["opted_out"] for node in list(nodes))
    rows = matrix(config_from_wire(settings), opted_out)
    if as_json:
        document = {"mode": settings["mode"], "classes": [asdict(row) for row in rows]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    table = Table(title=f"{settings['mode']} mode, node encryption "
                        f"{'on' if settings['node_encryption'] else 'off'}")
    for heading in ("", "traffic", "other side known", "not discovered", "remarks"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            f"IPv{row.family}",
            row.traffic,
            _cell(row.known, row.known_rule),
            _cell(row.unknown, row.unknown_rule),
            row.remark,
        )
    Console().print(table)


def _cell(outcome: str, rule: int) -> str:
    where = f" (row {rule})" if rule else " (ingress)"
    return f"[{_COLOURS[outcome]}]{outcome}[/]{where}"
