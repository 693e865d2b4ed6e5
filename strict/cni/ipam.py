"""Addresses from another plugin: section 4 of the specification, delegation.

The delegated plugin gets our environment and our configuration.  One that does not know
our version yet (Debian's `host-local` ends at 1.0.0) gets the newest one that both know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from strict.cni import errors
from strict.cni.errors import CniError
from strict.cni.request import VERSIONS, Request

TIMEOUT: Final = 60.0
"""Seconds: a DHCP plugin may take its time."""


class Ipam:
    """The plugin that `ipam.type` names."""

    def __init__(self, request: Request) -> None:
        """Raises `CniError` when it is not in CNI_PATH."""
        self._request = request
        self._name = str(request.ipam["type"])
        self._program = self._find()
        self._version = request.version
        if request.version != VERSIONS[0]:
            self._version = self._newest_common()

    def add(self) -> dict[str, Any]:
        """Its result, with one address at least; raises `CniError`."""
        result = self._run("ADD")
        if not result.get("ips"):
            raise CniError(errors.INVALID_CONFIG, f"IPAM plugin {self._name} gave no address")
        return result

    def check(self) -> None:
        self._run("CHECK")

    def delete(self) -> None:
        """Give the addresses back; fine when there are none."""
        self._run("DEL")

    def delete_other(self, container: str, ifname: str) -> None:
        """Give back what another attachment holds."""
        self._run("DEL", {"CNI_CONTAINERID": container, "CNI_IFNAME": ifname})

    def status(self) -> None:
        """Raises `CniError`; one that is older than the question is taken to be well."""
        if self._version == self._request.version:
            self._run("STATUS")

    def collect(self) -> None:
        """Hand GC on, to those that know it."""
        if self._version == self._request.version:
            self._run("GC")

    def _find(self) -> str:
        if os.sep in self._name:
            raise CniError(errors.INVALID_CONFIG, f"IPAM plugin {self._name!r}: a name, no path")
        for folder in self._request.path:
            program = os.path.join(folder, self._name)  # noqa: PTH118 (pathlib is slow to import)
            if os.access(program, os.X_OK):
                return program
        raise CniError(
            errors.INVALID_CONFIG,
            f"IPAM plugin {self._name!r} is not in CNI_PATH",
            f"CNI_PATH is {os.pathsep.join(self._request.path) or 'empty'}; Debian's plugins "
            "(containernetworking-plugins) are in /usr/lib/cni",
        )

    def _newest_common(self) -> str:
        known = self._run("VERSION").get("supportedVersions", ())
        common = [version for version in VERSIONS if version in known]
        if not common:
            raise CniError(errors.INCOMPATIBLE_VERSION, f"IPAM plugin {self._name} knows none of "
                           f"the CNI versions {', '.join(VERSIONS)}")  # fmt: skip
        return common[-1]

    def _run(self, verb: str, changes: Mapping[str, str] | None = None) -> dict[str, Any]:
        import subprocess  # Only here: it costs start-up time.

        config = {**self._request.config, "cniVersion": self._version}
        if previous := self._request.previous:
            config["prevResult"] = {**previous, "cniVersion": self._version}
        try:
            done = subprocess.run(
                [self._program],
                input=json.dumps(config).encode(),
                stdout=subprocess.PIPE,
                env={**self._request.environment, "CNI_COMMAND": verb, **(changes or {})},
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            text = f"IPAM plugin {self._name} did not answer within {TIMEOUT:g} seconds"
            raise CniError(errors.TRY_AGAIN_LATER, text) from None
        try:
            answer = json.loads(done.stdout) if done.stdout.strip() else {}
        except ValueError:
            answer = {"msg": "its answer is not JSON"} if done.returncode else {}
        if done.returncode:
            said = answer.get("msg") or f"it ended with {done.returncode}"
            details = str(answer.get("details", ""))
            code = int(answer.get("code", errors.IO_FAILURE))
            raise CniError(code, f"IPAM plugin {self._name}: {said}", details)
        found: dict[str, Any] = answer
        return found
