"""The pods that the runtime attached on this node, remembered in one file below /run.

The file outlives the agent and not the machine, as the pods do.  A pod whose device is gone
when the agent starts was taken away meanwhile, and is forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address, parse_address


@dataclass(frozen=True, slots=True)
class Attachment:
    """The specification's key of all state."""

    network: str
    container: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.ifname} of container {self.container} in network {self.network}"


@dataclass(frozen=True, slots=True)
class Pod:
    """One attachment.  `device` is the node's end, "" where it is not known."""

    attachment: Attachment
    ips: tuple[AddressBytes, ...]
    device: str = ""
    netns: str = ""

    @property
    def prefixes(self) -> Iterator[Prefix]:
        """Its addresses as table entries have them."""
        return (Prefix(ip, len(ip) * 8) for ip in self.ips)

    def to_json(self) -> dict[str, Any]:
        ips = [format_address(ip) for ip in self.ips]
        return {**asdict(self.attachment), "ips": ips, "device": self.device, "netns": self.netns}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pod:
        """Raises KeyError, TypeError or ValueError."""
        texts = {name: data[name] for name in ("network", "container", "ifname")}
        if not all(isinstance(text, str) and text for text in texts.values()):
            raise ValueError("network, container and ifname must be texts")
        ips = tuple(parse_address(ip) for ip in data["ips"])
        if not ips:
            raise ValueError("a pod has at least one address")
        return cls(Attachment(**texts), ips, str(data.get("device", "")),
                   str(data.get("netns", "")))  # fmt: skip


class PodBook:
    """All attachments, by their key and by address, and the file that says the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pods: dict[Attachment, Pod] = {}
        self._holders: dict[AddressBytes, Attachment] = {}

    def __iter__(self) -> Iterator[Pod]:
        return iter(list(self._pods.values()))

    def load(self) -> list[Pod]:
        """What an agent before this one knew and is still there; returns the forgotten.

        Raises ValueError for a file that cannot be read: its pods are not known then.
        """
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        try:
            found = [Pod.from_json(item) for item in json.loads(text)["pods"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path}: {error}: attach the pods of this node again") from None
        there = {name for _, name in socket.if_nameindex()}
        for pod in found:
            if not pod.device or pod.device in there:
                self._put(pod)
        return [pod for pod in found if pod.attachment not in self._pods]

    def get(self, attachment: Attachment) -> Pod | None:
        return self._pods.get(attachment)

    def holder(self, ips: Iterable[AddressBytes], but: Attachment) -> Attachment | None:
        """Another attachment that has one of these addresses."""
        for ip in ips:
            holder = self._holders.get(ip, but)
            if holder != but:
                return holder
        return None

    def add(self, pod: Pod) -> None:
        """Raises OSError when it cannot be written down; then it is not known either."""
        self._put(pod)
        try:
            self._save()
        except OSError:
            self._drop(pod)
            raise

    def remove(self, attachment: Attachment) -> Pod | None:
        """The pod that was known; None when there was none.  Raises OSError."""
        pod = self._pods.get(attachment)
        if pod is not None:
            self._drop(pod)
            self._save()
        return pod

    def _put(self, pod: Pod) -> None:
        self._pods[pod.attachment] = pod
        self._holders.update(dict.fromkeys(pod.ips, pod.attachment))

    def _drop(self, pod: Pod) -> None:
        self._pods.pop(pod.attachment, None)
        for ip in pod.ips:
            self._holders.pop(ip, None)

    def _save(self) -> None:
        """The old file or the new one, never half of it."""
        text = json.dumps({"schema": 1, "pods": [pod.to_json() for pod in self]})
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            partial.write_text(text)
            partial.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
