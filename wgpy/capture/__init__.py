"""Writes captures that Wireshark can decrypt, and reads captures of any program.

`pcapng` and `pcap` are the file formats; `dissect` gets from frames to UDP payloads through
the layers of `link` and `layers`; `keylog` is Wireshark's key log; `follow` understands
WireGuard traffic with those keys, `sessions` without; `decrypt` and `explained` make JSON and
lines of that; `record` writes what a running device does.
"""
