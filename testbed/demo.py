"""See WireGuard work, and strict mode hold, in under a minute.

`wgpy demo`: real packets between network namespaces, as root or in an unprivileged user
namespace; where there is no TUN device at all, the same engines in the simulator.
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
    "labs": "labs to play with: the leak, roaming, spoofing …",
    "up leak": "this demo's cluster, to keep",
    "exec alpha wg": "or any other command in there",
    "capture": "the eavesdropper's view",
    "publish beta": "let the others discover a node",
}
"""What to do with `wgpy testbed` now."""


def _hints() -> list[str]:
    lines = {typed.wgpy("testbed", *words.split()): text for words, text in NEXT.items()}
    lines["docs/strict-mode.md"] = "what is decided, by which row of which table"
    width = max(map(len, lines))
    return [f"{line:<{width}}  {text}" for line, text in lines.items()]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--simulate", is_flag=True, help="In the simulator, even where TUN works.")
@click.option("--seconds", default=1, show_default=True, help="Length of each iperf3 run.")
def demo(as_json: bool, simulate: bool, seconds: int) -> None:
    """See WireGuard work, and strict mode hold, in under a minute."""
    story = Story(as_json=as_json)
    if not simulate:
        reason = _enter()
        if reason:
            story.say(f"[yellow]No real packets here: {reason}[/]")
            story.say("[yellow]The same engines run in the simulator instead.[/]")
            simulate = True
    try:
        if simulate:
            first_light_simulated(story)
            strict_story_simulated(story)
        else:
            if privileges.inside_user_namespace():
                story.say("[yellow]Not root: everything runs in a user namespace of its own.[/]")
            first_light(story, seconds=seconds)
            strict_story(story, seconds=seconds)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    story.finish(_hints())
    if not story.went_well:
        raise click.ClickException("not all of it went as it should: see the table")


def _enter() -> str:
    """Get the rights for real packets, perhaps by starting again; else say why not."""
    try:
        privileges.require()
    except PermissionError as error:
        return str(error)
    return ""
