"""Configuration files as `wg-quick` reads them, parsed strictly.

The format is that of wg(8) "CONFIGURATION FILE FORMAT" and wg-quick(8); what those read
is read here, with the same meaning (docs/wg-quick.md lists the exceptions).  Where they
stop at the first mistake, this reader reports all at once: each with line, column, what
is wrong and a fix.  What is valid and probably not meant is remarked.

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
