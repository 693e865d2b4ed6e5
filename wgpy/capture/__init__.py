"""Captures that open in Wireshark, and opening captures of anybody.

`pcapng` and `pcap` are the file formats, `link` gets from frames to UDP payloads,
`keylog` is Wireshark's key log, `follow` understands WireGuard traffic with those keys,
`record` writes what a running device does.
"""
