"""Configuration files as `wg-quick` reads them, parsed strictly.

The format is that of wg(8) "CONFIGURATION FILE FORMAT" and wg-quick(8).  Where those
tools take the last of two values or stop at the first mistake, this reader refuses, and
reports all mistakes at once: each with line, column, what is wrong and the fix.

Invariants: text in, values out; no file is opened, no name resolved (the caller gives
`Config.change` a resolver).  No message repeats a key or anything that looks like one:
of those it tells position and length only.
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
