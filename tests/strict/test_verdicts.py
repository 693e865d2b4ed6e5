"""The verdict table row by row, IPv4 and IPv6, in default and in strict mode.

Each row is told twice: *assert* (strict mode does what it must) and *sanity* (default
mode really behaves otherwise, so the assertion could have failed).
"""

from __future__ import annotations

import pytest

from strict.labels import Selector
from strict.settings import Mode
from strict.table import StrictTable
from strict.verdicts import Rule
from tests.strict.helpers import CONTROL, a, config, entry, key, node, p, table, tcp
from wgpy.protocol.drops import DropReason
from wgpy.protocol.policy import Action

BOTH = pytest.mark.parametrize("mode", list(Mode))
FAMILY = pytest.mark.parametrize("form", ["10.244.{}.{}", "fd00:10:0:{}::{}"])
NODE = {"10.244.{}.{}": "192.168.5.{}", "fd00:10:0:{}::{}": "fd00:5::{}"}
WORLD = {"10.244.{}.{}": "8.8.8.8", "fd00:10:0:{}::{}": "2001:db8::8"}


def judge(made: StrictTable, source: str, destination: str, packet: bytes = b"") -> tuple[int, str]:
    decision = made.decide(a(source), a(destination), packet)
    assert made.egress(a(source), a(destination), packet) == decision.verdict
    reason = decision.verdict.reason
    return int(decision.rule), reason.name if reason else decision.verdict.action.value


def test_nothing_passes_before_the_table_is_loaded() -> None:
    empty = StrictTable()
    decision = empty.decide(a("10.244.1.1"), a("8.8.8.8"))
    assert decision.verdict == (Action.DROP, DropReason.POLICY_NOT_LOADED, False)
    assert empty.malformed(b"").reason is DropReason.POLICY_NOT_LOADED
    assert empty.ingress(a("10.244.1.1"), a("10.244.2.2"), key(1), b"").action is Action.DROP


def test_row_1_malformed() -> None:
    assert table(Mode.STRICT).malformed(b"\x45").reason is DropReason.MALFORMED
    assert table(Mode.DEFAULT).malformed(b"\x45").action is Action.PLAINTEXT


@BOTH
@FAMILY
def test_row_2_local_pods_are_never_encrypted(mode: Mode, form: str) -> None:
    made = table(mode)
    assert judge(made, form.format(1, 5), form.format(1, 6)) == (2, "plaintext")
    made.upsert_entry(entry(form.format(9, 9), "here"))
    assert judge(made, form.format(1, 5), form.format(9, 9)) == (2, "plaintext")


@BOTH
@FAMILY
def test_row_3_known_endpoint(mode: Mode, form: str) -> None:
    assert judge(table(mode), form.format(1, 5), form.format(3, 7)) == (3, "encrypt")


@BOTH
def test_row_3_the_entry_may_name_its_node_by_address(mode: Mode) -> None:
    made = table(mode)
    made.upsert_entry(entry("10.244.9.9", "192.168.5.3"))
    decision = made.decide(a("10.244.1.5"), a("10.244.9.9"))
    assert decision.rule is Rule.KNOWN_ENDPOINT
    assert decision.node is not None and decision.node.name == "pods"


@BOTH
@FAMILY
def test_row_4_known_pod_cidr(mode: Mode, form: str) -> None:
    assert judge(table(mode), form.format(1, 5), form.format(2, 77)) == (4, "encrypt")


@BOTH
def test_a_longer_pod_cidr_outranks_a_shorter_entry_and_the_other_way_round(mode: Mode) -> None:
    made = table(mode)
    made.upsert_entry(entry("10.244.0.0/16", "pods"))
    assert made.decide(a("10.244.1.5"), a("10.244.2.9")).node == made.nodes.get("there")
    made.upsert_entry(entry("10.244.2.9", "pods"))
    assert made.decide(a("10.244.1.5"), a("10.244.2.9")).node == made.nodes.get("pods")


@FAMILY
@pytest.mark.parametrize(
    ("third", "last", "missing"),
    [(6, 1, "an ipcache entry"), (4, 7, "the WireGuard key of node 'keyless'"),
     (5, 7, "node 'nobody'")],
)
def test_row_5_unknown_pods_leak_or_are_dropped(
    form: str, third: int, last: int, missing: str
) -> None:
    source, destination = form.format(1, 5), form.format(third, last)
    strict, default = table(Mode.STRICT), table(Mode.DEFAULT)
    assert judge(strict, source, destination) == (5, "UNENCRYPTED_TRAFFIC")
    assert judge(default, source, destination) == (5, "plaintext")
    assert missing in strict.decide(a(source), a(destination)).missing


@FAMILY
def test_row_5_an_entry_that_forbids_encryption(form: str) -> None:
    for mode, expected in ((Mode.STRICT, "UNENCRYPTED_TRAFFIC"), (Mode.DEFAULT, "plaintext")):
        made = table(mode)
        made.upsert_entry(entry(form.format(3, 8), "pods", encrypt=False))
        assert judge(made, form.format(1, 5), form.format(3, 8)) == (5, expected)


@FAMILY
def test_row_5_discovery_heals_and_forgetting_breaks_again(form: str) -> None:
    made = table()
    source, destination = form.format(1, 5), form.format(4, 7)
    generation = made.generation
    made.upsert_node(node("keyless", 4))
    assert made.generation > generation
    assert judge(made, source, destination) == (3, "encrypt")
    made.delete_node("keyless")
    assert judge(made, source, destination) == (5, "UNENCRYPTED_TRAFFIC")


@FAMILY
def test_row_5_an_unknown_source_is_no_way_round(form: str) -> None:
    assert judge(table(), WORLD[form], form.format(6, 1)) == (5, "UNENCRYPTED_TRAFFIC")


@BOTH
@FAMILY
def test_row_6_the_world(mode: Mode, form: str) -> None:
    assert judge(table(mode), form.format(1, 5), WORLD[form]) == (6, "plaintext")


@BOTH
@FAMILY
def test_row_7_node_traffic_without_node_encryption(mode: Mode, form: str) -> None:
    made, here, there = table(mode), NODE[form].format(1), NODE[form].format(2)
    for source, destination in (
        (form.format(1, 5), there), (here, form.format(2, 5)), (here, there),
        (here, form.format(6, 1)), (form.format(1, 5), NODE[form].format(99)),
    ):
        assert judge(made, source, destination) == (7, "plaintext")


@BOTH
@FAMILY
def test_row_8_node_encryption(mode: Mode, form: str) -> None:
    made = table(mode, node_encryption=True)
    here, there = NODE[form].format(1), NODE[form].format(2)
    for source, destination in (
        (form.format(1, 5), there), (here, form.format(2, 5)), (here, there),
        (here, form.format(3, 7)),
    ):
        assert judge(made, source, destination) == (8, "encrypt")
    assert judge(made, form.format(1, 5), here) == (2, "plaintext")


@FAMILY
def test_row_9_unknown_peers(form: str) -> None:
    here, far = NODE[form].format(1), NODE[form].format(99)
    flows = [(here, far), (form.format(1, 5), far), (here, form.format(6, 1)),
             (here, NODE[form].format(4)), (here, form.format(4, 7))]
    for source, destination in flows:
        assert judge(table(node_encryption=True), source, destination) == (
            9, "UNENCRYPTED_TRAFFIC")
        assert judge(table(Mode.DEFAULT, node_encryption=True), source, destination) == (
            9, "plaintext")


@FAMILY
@pytest.mark.parametrize("label", ["this node", "the other node"])
def test_opting_out_keeps_pods_encrypted(form: str, label: str) -> None:
    made = table(node_encryption=True, node_encryption_opt_out=Selector.parse("edge"))
    name, number = ("here", 1) if label == "this node" else ("there", 2)
    slices = (f"10.244.{number}.0/24", f"fd00:10:0:{number}::/64")
    made.upsert_node(node(name, number, cidrs=slices, labels={"edge": ""}))
    here, there = NODE[form].format(1), NODE[form].format(2)
    assert judge(made, here, there) == (7, "plaintext")
    assert judge(made, form.format(1, 5), there) == (7, "plaintext")
    assert judge(made, form.format(1, 5), form.format(2, 5)) == (4, "encrypt")


class TestEtcd:
    """Row 9's exception: only a port that can really be read opens it."""

    @staticmethod
    def made(mode: Mode = Mode.STRICT) -> StrictTable:
        made = table(mode, node_encryption=True)
        made.upsert_node(node("control", 9, with_key=False, labels=CONTROL))
        return made

    @FAMILY
    @pytest.mark.parametrize("port", [2379, 2380])
    def test_both_directions(self, form: str, port: int) -> None:
        here, control = NODE[form].format(1), NODE[form].format(9)
        made = self.made()
        assert judge(made, here, control, tcp(here, control, 40000, port)) == (9, "plaintext")
        made.upsert_node(node("here", 1, labels=CONTROL))
        assert judge(made, here, control, tcp(here, control, port, 40000)) == (9, "plaintext")
        verdict = made.egress(a(here), a(control), tcp(here, control, 40000, port))
        assert verdict.per_packet, "an answer that looked at ports must not be cached"

    def test_control_plane_by_address(self) -> None:
        made = table(node_encryption=True, control_plane=(p("192.168.5.200/30"),))
        packet = tcp("192.168.5.1", "192.168.5.201", 40000, 2379)
        assert judge(made, "192.168.5.1", "192.168.5.201", packet) == (9, "plaintext")
        packet = tcp("192.168.5.1", "192.168.5.222", 40000, 2379)
        assert judge(made, "192.168.5.1", "192.168.5.222", packet)[1] == "UNENCRYPTED_TRAFFIC"

    @FAMILY
    @pytest.mark.parametrize(
        "shape",
        [
            {"sport": 1, "dport": 22},
            {"sport": 2379, "dport": 22},
            {"sport": 1, "dport": 2379, "offset": 1},
            {"sport": 1, "dport": 2379, "header": 19},
        ],
    )
    def test_what_cannot_be_read_is_dropped(self, form: str, shape: dict[str, int]) -> None:
        here, control = NODE[form].format(1), NODE[form].format(9)
        packet = tcp(here, control, **shape)
        assert judge(self.made(), here, control, packet) == (9, "UNENCRYPTED_TRAFFIC")
        assert judge(self.made(Mode.DEFAULT), here, control, packet) == (9, "plaintext")

    @pytest.mark.parametrize(
        ("options", "opens"),
        [
            (b"\x01\x01\x01\x00", True),
            (b"\x07\x04\x04\x00", True),
            (b"\x94\x04\x00\x00\x01\x01\x01\x00", True),
            (b"\x83\x04\x04\x00", False),
            (b"\x89\x04\x04\x00", False),
            (b"\x07\x01\x00\x00", False),
            (b"\x01\x01\x01\x07", False),
            (b"\x07\x08\x04\x00", False),
        ],
    )
    def test_ip_options(self, options: bytes, opens: bool) -> None:
        packet = tcp("192.168.5.1", "192.168.5.9", 1, 2379, options=options)
        expected = "plaintext" if opens else "UNENCRYPTED_TRAFFIC"
        assert judge(self.made(), "192.168.5.1", "192.168.5.9", packet) == (9, expected)

    def test_udp_is_not_tcp(self) -> None:
        packet = bytearray(tcp("192.168.5.1", "192.168.5.9", 1, 2379))
        packet[9] = 17
        assert judge(self.made(), "192.168.5.1", "192.168.5.9", bytes(packet))[1] != "plaintext"


class TestIngress:
    """Out of a tunnel: the source must live on the node whose key the tunnel proved."""

    @FAMILY
    @pytest.mark.parametrize(("third", "last", "sender"), [(2, 5, 2), (3, 7, 3)])
    def test_the_right_node(self, form: str, third: int, last: int, sender: int) -> None:
        source, destination = a(form.format(third, last)), a(form.format(1, 5))
        assert table().ingress(source, destination, key(sender), b"").action is Action.ACCEPT

    @FAMILY
    @pytest.mark.parametrize(
        ("third", "last", "sender"),
        [(2, 5, 3), (3, 7, 2), (1, 5, 2), (6, 1, 2), (4, 7, 2), (5, 7, 3), (2, 5, 77)],
    )
    def test_anybody_else(self, form: str, third: int, last: int, sender: int) -> None:
        source, destination = a(form.format(third, last)), a(form.format(1, 5))
        verdict = table().ingress(source, destination, key(sender), b"")
        assert verdict.reason is DropReason.SOURCE_NOT_ON_NODE
        default = table(Mode.DEFAULT).ingress(source, destination, key(sender), b"")
        assert default.action is Action.ACCEPT

    @FAMILY
    def test_no_transit(self, form: str) -> None:
        """What came encrypted never goes on to another node in plaintext."""
        source, elsewhere = a(form.format(2, 5)), a(form.format(3, 7))
        verdict = table().ingress(source, elsewhere, key(2), b"")
        assert verdict.reason is DropReason.UNENCRYPTED_TRAFFIC
        for destination in (form.format(1, 99), NODE[form].format(1), WORLD[form]):
            verdict = table().ingress(source, a(destination), key(2), b"")
            assert verdict.action is Action.ACCEPT

    @FAMILY
    def test_node_addresses(self, form: str) -> None:
        source, destination = a(NODE[form].format(2)), a(form.format(1, 5))
        assert table().ingress(source, destination, key(2), b"").action is Action.ACCEPT
        assert table().ingress(source, destination, key(3), b"").action is Action.DROP

    def test_allowed_ips_accept_without_making_known(self) -> None:
        made = table()
        made.upsert_node(node("pods", 3, allowed=("10.244.8.0/24",)))
        verdict = made.ingress(a("10.244.8.1"), a("10.244.1.5"), key(3), b"")
        assert verdict.action is Action.ACCEPT
        assert judge(made, "10.244.1.5", "10.244.8.1") == (5, "UNENCRYPTED_TRAFFIC")
        made.upsert_entry(entry("10.244.8.1", "there"))
        verdict = made.ingress(a("10.244.8.1"), a("10.244.1.5"), key(3), b"")
        assert verdict.reason is DropReason.SOURCE_NOT_ON_NODE


class TestOverlap:
    """Node addresses inside the pod CIDRs."""

    def test_refused_with_what_would_happen(self) -> None:
        with pytest.raises(ValueError, match="cause the node to drop all traffic"):
            config(node_cidrs=(p("10.244.7.0/24"),))
        made = table()
        inside = node("inside", 8)
        with pytest.raises(ValueError, match=r"10\.244\.3\.3 of node 'inside' overlaps"):
            made.upsert_node(type(inside)("inside", (a("10.244.3.3"),), key(8)))
        with pytest.raises(ValueError, match="endpoint"):
            made.upsert_node(node("inside", 8, endpoint="10.244.3.3:51820"))
        assert made.nodes.get("inside") is None

    def test_default_mode_does_not_care(self) -> None:
        config(Mode.DEFAULT, node_cidrs=(p("10.244.7.0/24"),))

    def test_allowed_when_asked_for_and_then_only_known_addresses(self) -> None:
        made = table(allow_remote_node_identities=True)
        made.upsert_node(type(node("x", 8))("inside", (a("10.244.6.6"),), key(8)))
        assert judge(made, "10.244.1.5", "10.244.6.6") == (7, "plaintext")
        assert judge(made, "10.244.1.5", "10.244.6.7") == (5, "UNENCRYPTED_TRAFFIC")

    def test_settings_that_do_not_fit_the_known_nodes(self) -> None:
        made = table(Mode.DEFAULT)
        made.upsert_node(type(node("x", 8))("inside", (a("10.244.6.6"),), key(8)))
        before = made.config
        with pytest.raises(ValueError, match="drop all traffic"):
            made.configure(config())
        assert made.config is before

    def test_strict_mode_needs_pod_cidrs(self) -> None:
        with pytest.raises(ValueError, match="needs pod_cidrs"):
            config(pod_cidrs=())


def test_families_do_not_collide() -> None:
    made = table(pod_cidrs=(p("10.0.0.0/8"),), node_cidrs=())
    made.upsert_entry(entry("10.0.0.0/8", "pods"))
    assert judge(made, "10.244.1.5", "a00::1") == (6, "plaintext")
    assert judge(made, "10.244.1.5", "10.9.9.9") == (3, "encrypt")
