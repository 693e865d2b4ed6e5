"""What each verb does: section 2 of the specification.

With `ipam` in its configuration the plugin makes an interface:

    ADD   1 the agent is ready   2 nothing of that name is there   3 addresses from IPAM
          4 the device           5 the agent knows the pod, and its table does
    DEL   the device, the agent's knowledge, the addresses: what is gone already is fine

Whatever fails in ADD, the steps before are undone, the last first.  Without `ipam` it is
chained behind a plugin that made the interface: it lowers the MTU and does step 5.

A pod is known before ADD returns, so before anything runs in it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from strict.cni import client, errors, pod, results
from strict.cni.client import AgentAway, ask
from strict.cni.errors import CniError
from strict.cni.ipam import Ipam
from strict.cni.pod import Plan
from strict.cni.request import VERSIONS, Request

VALID: str = "cni.dev/valid-attachments"

Tell = Callable[[Mapping[str, Any]], None]


def run(request: Request, tell: Tell) -> None:
    """Carry the request out and `tell` its result; raises `CniError` or OSError."""
    match request.verb:
        case "ADD":
            _add(request, tell)
        case "DEL":
            _delete(request)
        case "CHECK":
            _check(request)
        case "GC":
            _collect(request)
        case "STATUS":
            _status(request)
        case "VERSION":
            tell({"cniVersion": request.version, "supportedVersions": VERSIONS})


def _add(request: Request, tell: Tell) -> None:
    if not request.ipam and not request.previous:
        raise CniError(errors.INVALID_CONFIG, "neither `ipam` nor `prevResult`",
                       "name an IPAM plugin, or chain behind a plugin that attaches")  # fmt: skip
    with ExitStack() as undo:
        namespace = pod.open_namespace(request.netns)
        undo.callback(os.close, namespace)
        ready = ask(request.agent, "ready", **request.attachment)
        make = _attach if request.ipam else _adopt
        result = make(request, ready, namespace, undo)
        tell(result)
        # Only the descriptor is left to be closed.
        undo.pop_all()
        os.close(namespace)


def _attach(
    request: Request, ready: Mapping[str, Any], namespace: int, undo: ExitStack
) -> dict[str, Any]:
    """With an interface of our own."""
    device = pod.device_name(**request.attachment)
    pod.refuse_existing(namespace, request.ifname, device)
    ipam = Ipam(request)
    undo.callback(_quietly, ipam.delete)
    given = ipam.add()
    plan = Plan(
        device,
        request.ifname,
        results.addresses_of(given),
        results.destinations_of(given),
        request.config.get("mtu") or ready["mtu"],
        ready["route_mtu"],
        " ".join(request.attachment.values()),
    )
    ends = pod.attach(namespace, plan, undo)
    _publish(request, plan.ips, device, undo)
    dns = given.get("dns") or request.config.get("dns") or {}
    return results.attached(request, plan, ends, dns)


def _adopt(
    request: Request, ready: Mapping[str, Any], namespace: int, undo: ExitStack
) -> dict[str, Any]:
    """With the interface that the plugin before has made."""
    ips = results.addresses_of(request.previous, request.ifname)
    if not ips:
        raise CniError(errors.INVALID_CONFIG, f"`prevResult` has no address of {request.ifname}")
    _, device = pod.shrink(namespace, request.ifname, ready["route_mtu"])
    _publish(request, ips, device, undo)
    return {**request.previous, "cniVersion": request.version}


def _publish(request: Request, ips: tuple[bytes, ...], device: str, undo: ExitStack) -> None:
    """Returns when the agent's table, its rules and its routes have the pod."""
    undo.callback(_quietly, lambda: ask(request.agent, "del", **request.attachment))
    ask(
        request.agent,
        "add",
        **request.attachment,
        ips=[pod.format_ip(ip) for ip in ips],
        device=device,
        netns=request.netns,
    )


def _quietly(action: Callable[[], object]) -> None:
    """Undoing goes on whatever happens; what was left is said, and DEL will try again."""
    try:
        action()
    except (CniError, OSError) as error:
        print(f"wgpy-cni: not undone: {error}", file=sys.stderr)


def _delete(request: Request) -> None:
    """Traffic first, then what is known of the pod, then the address for others to have.

    Without an agent there is nobody to withdraw from: the next one sees that the device is
    gone, and no pod gets the address before.  One that runs but does not answer still sends
    to the old pod: the address is kept until the runtime tries again.
    """
    if request.ipam:
        pod.detach(pod.device_name(**request.attachment))
    with contextlib.suppress(AgentAway):
        ask(request.agent, "del", **request.attachment)
    if request.ipam:
        Ipam(request).delete()


def _check(request: Request) -> None:
    before = request.previous
    if not before:
        raise CniError(errors.INVALID_CONFIG, "CHECK needs `prevResult`")
    namespace = pod.open_namespace(request.netns)
    with ExitStack() as closing:
        closing.callback(os.close, namespace)
        ips = results.addresses_of(before, request.ifname)
        if request.ipam:
            Ipam(request).check()
            named = results.interface_in(before, request.ifname)
            device = pod.device_name(**request.attachment)
            routes = results.destinations_of(before) if before.get("routes") else ()
            plan = Plan(device, request.ifname, ips, routes, 0, 0)
            pod.check(namespace, plan, str(named.get("mac") or ""))
        shown = [pod.format_ip(ip) for ip in ips]
        ask(request.agent, "check", **request.attachment, ips=shown)


def _status(request: Request) -> None:
    """50: no ADD; 51: pods that are there may not reach others either."""
    try:
        ask(request.agent, "status")
    except AgentAway as error:
        control = f"{request.agent.removesuffix('.cni')}.control"
        alive = client.listens(control)
        code = errors.UNAVAILABLE if alive else errors.LIMITED
        text = str(error) if alive else f"{error}; the data plane does not run either"
        raise CniError(code, text, error.details) from None
    if request.ipam:
        Ipam(request).status()


def _collect(request: Request) -> None:
    """Forget attachments of this network that the runtime does not name."""
    valid = {(item.get("containerID"), item.get("ifname"))
             for item in request.config.get(VALID) or ()}  # fmt: skip
    try:
        known = ask(request.agent, "list", network=request.network)["pods"]
    except AgentAway:
        # What it knew of pods whose devices are gone, its successor forgets by itself.
        known = []
    ipam = Ipam(request) if request.ipam else None
    for item in known:
        container, ifname = item["container"], item["ifname"]
        if (container, ifname) in valid:
            continue
        if ipam:
            pod.detach(pod.device_name(request.network, container, ifname))
        ask(request.agent, "del", network=request.network, container=container, ifname=ifname)
        if ipam:
            ipam.delete_other(container, ifname)
    if ipam:
        ipam.collect()
