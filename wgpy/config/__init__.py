"""Configuration files as `wg-quick` reads them, parsed strictly.

The format is that of wg(8) "CONFIGURATION FILE FORMAT" and wg-quick(8); this reader accepts
the same files with the same meaning (docs/wg-quick.md lists the exceptions).  They stop at the
first mistake; this reader reports all at once, each with line, column, problem and fix.  What
is valid but probably not intended gets a note.

Invariants: text in, values out; no file is opened, no name resolved (the caller gives
`Config.change` a resolver).  No message repeats a key or anything that looks like one:
it shows only their position and length.
"""

from wgpy.config.model import (
    INTERFACE_NAME,
    Config,
    ConfigError,
    HostPort,
    InterfaceAddress,
    PeerConfig,
    Problem,
)
from wgpy.config.parser import parse_config

__all__ = [
    "INTERFACE_NAME",
    "Config",
    "ConfigError",
    "HostPort",
    "InterfaceAddress",
    "PeerConfig",
    "Problem",
    "parse_config",
]
