"""See WireGuard work, and strict mode hold, in under a minute.

`wgpy demo`: real packets between network namespaces, as root or in an unprivileged user
namespace; without a TUN device, the same engine in the simulator.
"""

from __future__ import annotations

import click

from testbed import privileges
from testbed.cluster import ClusterError
from testbed.control import ControlFailed
from testbed.dataplane import DataPlaneError
from testbed.demo_light import first_light
from testbed.demo_simulated import first_light_simulated, strict_story_simulated
from testbed.demo_strict import strict_story
from testbed.demo_view import Story
from testbed.namespaces import NamespaceError
from testbed.sniffer import SnifferBlind
from wgpy import typed

FAILURES = (
    ClusterError, ControlFailed, DataPlaneError, NamespaceError, SnifferBlind, TimeoutError,
)  # fmt: skip
NEXT = {
    "labs": "labs to try: the leak, roaming, spoofing …",
    "up leak": "this demo's cluster, to explore",
    "exec alpha wg": "or any other command in a node",
    "capture": "the eavesdropper's view",
    "publish beta": "make the others discover a node",
}
"""Next commands of `wgpy testbed`."""


def _hints() -> list[str]:
    lines = {typed.wgpy("testbed", *words.split()): text for words, text in NEXT.items()}
    lines["docs/strict-mode.md"] = "the verdict table: which row decides what"
    width = max(map(len, lines))
    return [f"{line:<{width}}  {text}" for line, text in lines.items()]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--simulate", is_flag=True, help="Use the simulator, even if TUN works.")
@click.option("--seconds", default=1, show_default=True, help="Length of each iperf3 run.")
def demo(as_json: bool, simulate: bool, seconds: int) -> None:
    """See WireGuard work, and strict mode hold, in under a minute."""
    story = Story(as_json=as_json)
    if not simulate:
        reason = _enter()
        if reason:
            story.say(f"[yellow]No real packets on this machine: {reason}[/]")
            story.say("[yellow]The same engine runs in the simulator instead.[/]")
            simulate = True
    try:
        if simulate:
            first_light_simulated(story)
            strict_story_simulated(story)
        else:
            if privileges.inside_user_namespace():
                story.say("[yellow]Not root: everything runs in a separate user namespace.[/]")
            first_light(story, seconds=seconds)
            strict_story(story, seconds=seconds)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    story.finish(_hints())
    if not story.went_well:
        raise click.ClickException("not every result is as expected: see the table")


def _enter() -> str:
    """Get the rights for real packets, possibly by restarting; otherwise return why not."""
    try:
        privileges.require()
    except PermissionError as error:
        return str(error)
    return ""
