"""The WireGuard protocol, sans-IO.

Nothing in this package knows about sockets, clocks, threads or randomness: time
arrives as ``now`` (monotonic nanoseconds) and entropy as a callable.  Start reading at
`engine`, beside the whitepaper ("WireGuard: Next Generation Kernel Network Tunnel",
revision of June 1 2020), whose sections the comments cite.
"""
