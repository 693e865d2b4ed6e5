"""What the real wg-quick and `wg` make of configuration files, many files at a time.

The functions of wg-quick are sourced into one bash, which reads each file with wg-quick's
own `parse_options` and hands what that leaves (``wg-quick strip``) to ``wg setconf``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ARRAYS: Final = (
    "ADDRESSES", "DNS", "DNS_SEARCH", "PRE_UP", "POST_UP", "PRE_DOWN", "POST_DOWN",
)  # fmt: skip
_SCRIPT: Final = r"""
source <(sed '/^# ~~ function override/,$d' "$WG_QUICK")
set +e
readlink() { echo "$2"; }
stat() { echo 0600; }
one() {
    set -e
    parse_options "$1"
    printf '%s\0' parsed "$MTU" "$TABLE" "$SAVE_CONFIG"
    printf '%s\0' ${#ADDRESSES[@]} "${ADDRESSES[@]}" ${#DNS[@]} "${DNS[@]}"
    printf '%s\0' ${#DNS_SEARCH[@]} "${DNS_SEARCH[@]}" ${#PRE_UP[@]} "${PRE_UP[@]}"
    printf '%s\0' ${#POST_UP[@]} "${POST_UP[@]}" ${#PRE_DOWN[@]} "${PRE_DOWN[@]}"
    printf '%s\0' ${#POST_DOWN[@]} "${POST_DOWN[@]}"
    wg setconf "$DEVICE" <(echo "$WG_CONFIG") && printf '%s\0' set || printf '%s\0' refused
}
for file in "$@"; do
    (one "$file" 2>/dev/null) || printf '%s\0' died
done
"""


class Quick(NamedTuple):
    """What wg-quick took out of a file, as text; `set` if `wg` took the rest."""

    mtu: str
    table: str
    save_config: bool
    arrays: dict[str, tuple[str, ...]]
    set: bool


def read(files: Sequence[Path], device: str) -> list[Quick | None]:
    """What becomes of each file; None where wg-quick itself ends with an error."""
    found = shutil.which("wg-quick")
    assert found, "compares with wg-quick: apt-get install wireguard-tools"
    environment = {"WG_QUICK": found, "DEVICE": device, "WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
    done = subprocess.run(
        ["bash", "-c", _SCRIPT, "wg-quick", *map(str, files)],
        capture_output=True,
        env=os.environ | environment,
        check=True,
    )
    words = iter(done.stdout.decode(errors="surrogateescape").split("\0"))
    return [_one(words) for _ in files]


def _one(words: Iterator[str]) -> Quick | None:
    if next(words) == "died":
        return None
    mtu, table, save = next(words), next(words), next(words) == "1"
    arrays = {name: tuple(next(words) for _ in range(int(next(words)))) for name in ARRAYS}
    return Quick(mtu, table, save, arrays, next(words) == "set")
