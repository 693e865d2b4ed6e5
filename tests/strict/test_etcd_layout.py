"""Keys and values as Cilium's agent writes them, and everything they could be instead."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from strict.discovery.etcd.layout import (
    Layout,
    encode,
    entry_fields,
    merged,
    node_fields,
    read_entry,
    read_node,
    spelled,
)
from strict.discovery.etcd.settings import EtcdSettings
from strict.ipcache import Entry, Source
from strict.nodes import Node
from tests.strict.helpers import a, key, node, p

# The order of Go's struct, null for slices and pointers that are not there, "" for net.IP.
NODE = (
    b'{"Name":"worker-1","Cluster":"default","IPAddresses":[{"Type":"InternalIP",'
    b'"IP":"192.168.5.2"},{"Type":"InternalIP","IP":"fd00:5::2"}],'
    b'"IPv4AllocCIDR":{"IP":"10.244.2.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,'
    b'"IPv6AllocCIDR":{"IP":"fd00:10:0:2::","Mask":"//////////8AAAAAAAAAAA=="},'
    b'"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"","IPv6HealthIP":"","IPv4IngressIP":"",'
    b'"IPv6IngressIP":"","ClusterID":0,"Source":"local","EncryptionKey":255,'
    b'"Labels":{"a":"\\u003cb\\u003e"},"Annotations":null,"NodeIdentity":0,'
    b'"WireguardPubKey":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","BootID":""}'
)
ENTRY = (
    b'{"IP":"10.244.2.7","Mask":null,"HostIP":"192.168.5.2","ID":20707,"Key":255,"Metadata":""}'
)
WORKER = node("worker-1", 2, cidrs=("10.244.2.0/24", "fd00:10:0:2::/64"), labels={"a": "<b>"})
POD = Entry(p("10.244.2.7"), "192.168.5.2", 20707, True, Source.KVSTORE)


def test_keys() -> None:
    layout = Layout(EtcdSettings(("http://127.0.0.1:2379",)))
    assert layout.nodes + "n" == "cilium/state/nodes/v1/default/n"
    assert layout.address_key(p("10.244.2.7")) == "cilium/state/ip/v1/default/10.244.2.7"
    assert layout.address_key(p("fd00::1")) == "cilium/state/ip/v1/default/fd00::1"
    assert layout.address_key(p("10.244.2.0/28")) == "cilium/state/ip/v1/default/10.244.2.0/28"
    other = Layout(EtcdSettings((), cluster="b", address_space="b", prefix="x/y"))
    assert other.nodes == "x/y/state/nodes/v1/b/" and other.addresses == "x/y/state/ip/v1/b/"


def test_values_byte_for_byte() -> None:
    assert encode(node_fields(WORKER, "default")) == NODE
    assert read_node("worker-1", "default", NODE) == WORKER
    assert encode(entry_fields(POD, a("192.168.5.2"))) == ENTRY
    assert read_entry("10.244.2.7", ENTRY) == (POD, a("192.168.5.2"))


@pytest.mark.parametrize("length", [0, 1, 17, 32])
def test_masks(length: int) -> None:
    prefix = p(f"255.255.255.255/{length}")
    value = encode(entry_fields(POD._replace(prefix=prefix), a("192.168.5.2")))
    assert read_entry(spelled(prefix), value)[0].prefix == prefix


def test_more_than_one_cidr_and_an_endpoint_of_its_own() -> None:
    rich = node("n", 3, cidrs=("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"),
                endpoint="203.0.113.9:4000")  # fmt: skip
    assert read_node("n", "c", encode(node_fields(rich, "c"))) == rich


def test_a_node_without_a_key_and_addresses_that_are_not_of_the_underlay() -> None:
    data = json.loads(NODE)
    data |= {"WireguardPubKey": "", "New": {"field": 1}}
    data["IPAddresses"] = [
        {"Type": "CiliumInternalIP", "IP": "10.244.2.1"},
        {"Type": "ExternalIP", "IP": "203.0.113.2"},
        {"Type": "InternalIP", "IP": "192.168.5.2"},
    ]
    found = read_node("worker-1", "default", encode(data))
    assert found.public_key is None
    assert found.addresses == (a("192.168.5.2"), a("203.0.113.2"))


def test_unknown_fields_are_kept_and_nothing_is_written_twice() -> None:
    fields = node_fields(WORKER, "default")
    new, different = merged(fields, NODE)
    assert not different
    theirs = json.loads(NODE) | {
        "NodeIdentity": 6, "Future": [1], "Annotations": {"x": "y"}, "WireguardPubKey": ""
    }  # fmt: skip
    new, different = merged(fields, encode(theirs))
    assert different and new["NodeIdentity"] == 6 and new["Future"] == [1]
    assert new["Annotations"] == {"x": "y"} and new["WireguardPubKey"] == key(2).base64
    assert merged(fields, encode(new)) == (new, False)
    moved = node_fields(replace(WORKER, endpoint=None), "default")
    with_endpoint = encode(theirs | {"Annotations": {"x": "y", "wgpy/endpoint": "1.2.3.4:5"}})
    assert merged(moved, with_endpoint)[0]["Annotations"] == {"x": "y"}
    assert merged(fields, b"garbage") == (fields, True)


def mask(*octets: int) -> str:
    return base64.b64encode(bytes(octets)).decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Name": "other"}, "Name is 'other', but the key says 'worker-1'"),
        ({"Cluster": "east"}, "Cluster is 'east'"),
        ({"WireguardPubKey": "short"}, "not a base64 key"),
        ({"WireguardPubKey": 1}, "WireguardPubKey must be a text"),
        ({"IPAddresses": {}}, None),
        ({"IPAddresses": "x"}, "IPAddresses must be a list"),
        ({"IPAddresses": ["x"]}, "must hold objects"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "x"}]}, "not an IP address"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": 1}]}, "IP must be an address"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "127.0.0.1"}]}, "not the address of a node"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "ff02::1"}]}, "not the address of a node"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "::"}]}, "not the address of a node"),
        ({"IPAddresses": [{}] * 257}, "at most 256"),
        ({"IPv4AllocCIDR": "10.0.0.0/8"}, "must be an object with IP and Mask"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "x"}}, "not a mask"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": mask(255, 0, 255, 0)}}, "not a mask of 4"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": mask(*[255] * 16)}}, "not a mask of 4"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.9", "Mask": mask(255, 0, 0, 0)}}, "is not an IPv4 CIDR"),
        ({"IPv6AllocCIDR": {"IP": "10.0.0.0", "Mask": mask(255, 0, 0, 0)}}, "is not an IPv6 CIDR"),
        ({"Labels": {"a": 1}}, "Labels must hold texts"),
        ({"Labels": {str(n): "" for n in range(300)}}, "at most 256 texts"),
        ({"Annotations": {"wgpy/endpoint": "x"}}, "not an endpoint"),
        ({"Filler": "x" * 70_000}, "not read"),
    ],
)  # fmt: skip
def test_bad_nodes(change: dict[str, object], reason: str | None) -> None:
    value = encode(json.loads(NODE) | change)
    if reason is None:
        assert read_node("worker-1", "default", value).addresses == ()
        return
    with pytest.raises(ValueError, match=reason) as caught:
        read_node("worker-1", "default", value)
    assert len(str(caught.value)) < 300, "no huge value in a log line"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "192.168.5.2", "fd00::1", "x" * 254, "ä", "-a"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="node's name"):
        read_node(name, "default", encode(node_fields(Node(name), "default")))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"IP": "10.244.2.8"}, "but the key says 10.244.2.7"),
        ({"IP": "10.244.2.07"}, "not an IP address"),
        ({"IP": None}, "IP must be an address"),
        ({"Mask": mask(255, 255, 255, 0)}, "but the key says"),
        ({"Mask": mask(255, 255, 255, 255)}, None),
        ({"HostIP": ""}, "not an IP address"),
        ({"HostIP": "x" * 1000}, "HostIP must be an address"),
        ({"ID": -1}, "ID must be a number"),
        ({"ID": True}, "ID must be a number"),
        ({"Key": 256}, "Key must be a number from 0 to 255"),
        ({"Key": "255"}, "Key must be a number"),
    ],
)
def test_bad_entries(change: dict[str, object], reason: str | None) -> None:
    value = encode(json.loads(ENTRY) | change)
    if reason is None:
        assert read_entry("10.244.2.7", value)[0] == POD
        return
    with pytest.raises(ValueError, match=reason):
        read_entry("10.244.2.7", value)


def test_two_spellings_of_one_address_are_one_key() -> None:
    """Else deleting the one would take the other with it."""
    value = encode(json.loads(ENTRY) | {"IP": "fd00::1"})
    assert read_entry("fd00::1", value)
    for other in ("FD00::1", "fd00:0::1", "fd00::1/128"):
        with pytest.raises(ValueError, match="but the key says"):
            read_entry(other, value)


@pytest.mark.parametrize(
    "value", [b"", b"\xff\xfe", b"[]", b"null", b"[" * 60_000, b"{", b"1" * 9000]
)
def test_not_an_object(value: bytes) -> None:
    with pytest.raises(ValueError, match="the value"):
        read_node("worker-1", "default", value)


def test_identities_that_do_not_fit_are_left_out() -> None:
    """Cilium's local identities carry a scope above the 24 bits of the table."""
    value = encode(json.loads(ENTRY) | {"ID": (1 << 24) + 5})
    assert read_entry("10.244.2.7", value)[0].identity == 0
