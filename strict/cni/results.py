"""Results of the specification, section 5: what a pod got, for the runtime and later plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from strict.cni import errors
from strict.cni.errors import CniError
from strict.cni.netlink import Link, Route
from strict.cni.pod import GATEWAYS, Plan, format_ip, format_mac, parse_prefix
from strict.cni.request import Request

_DEFAULTS: Final = ((bytes(4), 0), (bytes(16), 0))


def addresses_of(result: Mapping[str, Any], ifname: str = "") -> tuple[bytes, ...]:
    """The addresses of a result, packed; with `ifname`, of that interface in the container.

    Raises `CniError`.
    """
    interfaces = result.get("interfaces") or ()
    found = []
    try:
        for item in result.get("ips") or ():
            if not ifname or _is(interfaces, item.get("interface"), ifname):
                found.append(parse_prefix(item["address"])[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CniError(errors.UNDECODABLE, "a result has no valid `ips`", str(error)) from None
    return tuple(dict.fromkeys(found))


def _is(interfaces: Sequence[Mapping[str, Any]], index: int | None, ifname: str) -> bool:
    """An address without an interface belongs to the only one there is."""
    if index is None:
        return True
    return interfaces[index].get("name") == ifname and bool(interfaces[index].get("sandbox"))


def destinations_of(result: Mapping[str, Any]) -> tuple[tuple[bytes, int], ...]:
    """Where the routes of an IPAM result lead; everywhere when it names none."""
    try:
        named = tuple(parse_prefix(route["dst"]) for route in result.get("routes") or ())
    except (KeyError, TypeError, ValueError) as error:
        raise CniError(errors.UNDECODABLE, "a result has no valid `routes`", str(error)) from None
    return named or _DEFAULTS


def interface_in(result: Mapping[str, Any], ifname: str) -> Mapping[str, Any]:
    """The container's interface of that name in a result; empty when it is not named."""
    for item in result.get("interfaces") or ():
        if item.get("name") == ifname and item.get("sandbox"):
            found: Mapping[str, Any] = item
            return found
    return {}


def attached(
    request: Request, plan: Plan, ends: tuple[Link, Link], dns: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of ADD, added to the one of the plugin before, if there was any."""
    before = request.previous
    interfaces = list(before.get("interfaces") or ())
    host, pod = (_interface(request, link) for link in ends)
    result: dict[str, Any] = {
        **before,
        "cniVersion": request.version,
        "interfaces": [*interfaces, host, {**pod, "sandbox": request.netns}],
        "ips": [*(before.get("ips") or ()), *_ips(plan, len(interfaces) + 1)],
        "routes": [*(before.get("routes") or ()), *_routes(request, plan.routes)],
    }
    if dns or "dns" not in before:
        result["dns"] = dict(dns)
    return result


def _interface(request: Request, link: Link) -> dict[str, Any]:
    found: dict[str, Any] = {"name": link.name, "mac": format_mac(link.mac)}
    return found if request.version == "1.0.0" else {**found, "mtu": link.mtu}


def _ips(plan: Plan, interface: int) -> Iterable[dict[str, Any]]:
    for ip in plan.ips:
        gateway = format_ip(GATEWAYS[len(ip)])
        address = f"{format_ip(ip)}/{len(ip) * 8}"
        yield {"address": address, "gateway": gateway, "interface": interface}


def _routes(request: Request, routes: Iterable[Route]) -> Iterable[dict[str, Any]]:
    for route in routes:
        found: dict[str, Any] = {
            "dst": f"{format_ip(route.destination)}/{route.length}",
            "gw": format_ip(route.gateway),
        }
        if request.version != "1.0.0":
            found |= {"mtu": route.mtu, "advmss": route.advmss}
        yield found
