"""The text of the backstop's rules."""

from __future__ import annotations

import re

from strict.ruleset import Backstop, render
from wgpy.protocol.endpoint import Prefix

PODS = (Prefix.parse("10.244.0.0/16"), Prefix.parse("fd10::/48"))
LOCAL = (Prefix.parse("10.244.1.7"), Prefix.parse("fd10::7"))


def test_what_goes_to_own_pods_needs_no_set() -> None:
    """A set that comes with a transaction may be empty for some packets: replies were lost."""
    rules = render(Backstop("wg0", ("eth0",), 1, 51820, True, PODS, local=LOCAL), {})
    (own,) = re.findall(r"chain own_pods \{(.*?)\}", rules, re.DOTALL)
    assert own.split("\n") == ["", *(
        f"    {family} daddr {prefix} accept"
        for family, prefix in zip(("ip", "ip6"), LOCAL, strict=True)
    ), "  "]  # fmt: skip
    (leaving,) = re.findall(r"chain leaving \{(.*?)\n  \}", rules, re.DOTALL)
    asked = leaving.index("jump own_pods")
    assert asked < leaving.index("counter name before_nat")
