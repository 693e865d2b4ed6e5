"""Pictures of a cluster: text for the terminal, DOT for Graphviz, SVG for a page.

Drawn from the topology and, if given, from what each node knows (`View`): a node that another
one has not discovered is drawn with a dashed line.  Pure: text in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from testbed.discovery import View
from testbed.topology import Node, Topology


def as_text(topology: Topology, views: Mapping[str, View] | None = None) -> str:
    """A tree, one underlay after the other."""
    lines = [f"{topology.name}: {topology.summary or 'cluster'} ({_mode(topology)})"]
    if topology.pods:
        lines.append("pods in " + ", ".join(map(str, topology.pod_cidrs)))
    if topology.world:
        where = ", ".join(map(str, topology.world.addresses))
        lines += ["", f"world {where}", "  │"]
    lines.append("router" if topology.world or len(topology.underlays) > 1 else "")
    for underlay in topology.underlays:
        networks = ", ".join(map(str, underlay.networks))
        lines.append(f"══ {underlay.name} ══ {networks}, MTU {underlay.mtu}")
        members = [node for node in topology.nodes if underlay.name in node.underlays]
        for index, node in enumerate(members):
            lines += _node_text(topology, node, index == len(members) - 1)
    for viewer, view in (views or {}).items():
        missing = sorted(view.hidden | {f"the key of {name}" for name in view.keyless})
        if missing:
            lines.append(f"{viewer} has not discovered {', '.join(missing)}")
    return "\n".join(line for line in lines if line is not None)


def _mode(topology: Topology) -> str:
    words = {"plain": "plain WireGuard"}.get(topology.mode, f"{topology.mode} mode")
    return words + (", node encryption" if topology.node_encryption else "")


def _node_text(topology: Topology, node: Node, last: bool) -> list[str]:
    stem, bar = ("└─", "  ") if last else ("├─", "│ ")
    marks = " control plane" if node.control_plane else ""
    where = ", ".join(map(str, node.addresses))
    slices = node.pod_cidrs if topology.slices and topology.pods else ()
    inside = ", ".join(map(str, (*node.tunnel, *slices)))
    lines = [f"{stem} {node.name}{marks}  {where}" + (f"  [{inside}]" if inside else "")]
    for index, pod in enumerate(node.pods):
        branch = "└─" if index == len(node.pods) - 1 else "├─"
        lines.append(f"{bar}   {branch} {pod.path}  {', '.join(map(str, pod.addresses))}")
    return lines


def as_json(topology: Topology, views: Mapping[str, View] | None = None) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "name": topology.name,
        "mode": topology.mode,
        "underlays": {u.name: [str(n) for n in u.networks] for u in topology.underlays},
        "world": [str(a) for a in topology.world.addresses] if topology.world else [],
        "nodes": [
            {
                "name": node.name,
                "underlays": list(node.underlays),
                "addresses": [str(a) for a in node.addresses],
                "pods": {pod.path: [str(a) for a in pod.addresses] for pod in node.pods},
            }
            for node in topology.nodes
        ],
        "unknown": [{"viewer": viewer, "name": name} for viewer, name in _unknown(topology, views)],
    }


def as_dot(topology: Topology, views: Mapping[str, View] | None = None) -> str:
    """Graphviz: underlays as buses, nodes as boxes of pods."""
    lines = [f'graph "{topology.name}" {{', "  node [shape=box, fontname=sans];"]
    for underlay in topology.underlays:
        label = _join([underlay.name, *map(str, underlay.networks)])
        lines.append(f'  "net {underlay.name}" [label="{label}", shape=ellipse];')
    if topology.world:
        label = _join(["world", *map(str, topology.world.addresses)])
        lines.append(f'  "world" [label="{label}", style=dotted];')
        lines.append(f'  "world" -- "net {topology.underlays[0].name}";')
    for first, second in zip(topology.underlays, topology.underlays[1:], strict=False):
        lines.append(f'  "net {first.name}" -- "net {second.name}" [label="router"];')
    for node in topology.nodes:
        label = _join([node.name, *map(str, node.addresses)])
        lines.append(f'  "{node.name}" [label="{label}"];')
        lines += [f'  "{node.name}" -- "net {name}";' for name in node.underlays]
        for pod in node.pods:
            label = _join([pod.name, *map(str, pod.addresses)])
            lines.append(f'  "{pod.path}" [label="{label}", style=rounded];')
            lines.append(f'  "{pod.path}" -- "{node.name}";')
    for viewer, name in _unknown(topology, views):
        lines.append(f'  "{viewer}" -- "{name}" [style=dashed, color=red, label="not known"];')
    return "\n".join([*lines, "}"])


def _join(words: list[str]) -> str:
    return "\\n".join(words)


def _unknown(topology: Topology, views: Mapping[str, View] | None) -> list[tuple[str, str]]:
    names = {node.name for node in topology.nodes} | {pod.path for pod in topology.pods}
    return [
        (viewer, name)
        for viewer, view in (views or {}).items()
        for name in sorted(view.hidden & names)
    ]


_BOX, _GAP, _ROW = 190, 24, 60


def as_svg(topology: Topology, views: Mapping[str, View] | None = None) -> str:
    """One column per node below its underlay; works without any other program."""
    width = max(len(topology.nodes), 2) * (_BOX + _GAP) + _GAP
    bus = {u.name: 90 + 46 * i for i, u in enumerate(topology.underlays)}
    top = 90 + 46 * len(bus) + 20
    height = top + _ROW * (1 + max((len(node.pods) for node in topology.nodes), default=0)) + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        '<style>rect{fill:#fff;stroke:#345;rx:6}.pod{fill:#eef6ff}.bus{stroke:#345;stroke-width:4}'
        ".wire{stroke:#789}.unknown{stroke:#c22;stroke-dasharray:5 4;fill:none}</style>",
        _text(_GAP, 26, f"{topology.name}: {topology.summary} ({_mode(topology)})", bold=True),
    ]
    if topology.world:
        where = ", ".join(map(str, topology.world.addresses))
        parts.append(_text(_GAP, 56, f"world {where}"))
        parts.append(f'<line class="wire" x1="{_GAP}" y1="62" x2="{_GAP}" y2="90"/>')
    for underlay in topology.underlays:
        y = bus[underlay.name]
        parts.append(f'<line class="bus" x1="{_GAP}" y1="{y}" x2="{width - _GAP}" y2="{y}"/>')
        networks = ", ".join(map(str, underlay.networks))
        parts.append(_text(_GAP + 8, y - 8, f"{underlay.name}  {networks}"))
    left = {node.name: _GAP + i * (_BOX + _GAP) for i, node in enumerate(topology.nodes)}
    for node in topology.nodes:
        parts += _node_svg(node, left[node.name], top, [bus[name] for name in node.underlays])
    for index, (viewer, name) in enumerate(_unknown(topology, views)):
        start, end = left[viewer] + _BOX // 2, left[name.partition("/")[0]] + _BOX // 2
        y = height - 60 + 14 * (index % 3)
        parts.append(
            f'<path class="unknown" d="M{start},{y} L{end},{y}"/>'
            + _text(min(start, end), y - 4, f"{viewer} has not discovered {name}")
        )
    return "\n".join([*parts, "</svg>"])


def _node_svg(node: Node, x: int, top: int, buses: list[int]) -> list[str]:
    parts = []
    for index, y in enumerate(buses):
        at = x + 30 + 20 * index
        parts.append(f'<line class="wire" x1="{at}" y1="{y}" x2="{at}" y2="{top}"/>')
    lines = [node.name + (" (control plane)" if node.control_plane else "")]
    parts += _box(x, top, [*lines, *map(str, node.addresses)], "")
    for index, pod in enumerate(node.pods):
        y = top + _ROW * (index + 1)
        parts += _box(x + 14, y, [pod.name, *map(str, pod.addresses)], "pod")
    return parts


def _box(x: int, y: int, lines: list[str], style: str) -> list[str]:
    parts = [f'<rect class="{style}" x="{x}" y="{y}" width="{_BOX - 14}" height="{_ROW - 8}"/>']
    for index, line in enumerate(lines[:3]):
        parts.append(_text(x + 8, y + 16 + 15 * index, line, bold=index == 0))
    return parts


def _text(x: int, y: int, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'
