"""Inner packets of every kind, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.dataplane.oracle import ACK, CWR, ECE, FIN, PSH, URG, Packet

payloads = st.builds(
    lambda seed, size: (seed * (size // len(seed) + 1))[:size],
    st.binary(min_size=1, max_size=97),
    st.integers(1, 9000),
)

TCP_OPTIONS = (b"", b"\1\1\x08\x0a" + bytes(range(8)), b"\2\4\5\xb4", bytes(40))
IP_OPTIONS = {4: (b"", b"\x94\4\0\0", bytes(40)), 6: (b"", b"\0\0\1\4\0\0\0\0")}


@st.composite
def packets(draw: st.DrawFn, *, protocols: tuple[int, ...] = (6, 17)) -> Packet:
    """Any packet that a host may hand over as a whole for cutting."""
    version = draw(st.sampled_from((4, 6)))
    return Packet(
        version=version,
        protocol=draw(st.sampled_from(protocols)),
        payload=draw(payloads),
        sequence=draw(st.one_of(st.integers(0, 2**32 - 1), st.just(2**32 - 100))),
        flags=draw(st.sampled_from((0, FIN, PSH, CWR, ECE, URG, FIN | PSH | CWR | ECE))) | ACK,
        identification=draw(st.one_of(st.integers(0, 65535), st.just(65534))),
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(1, 255)),
        fragment=draw(st.sampled_from((0, 0x4000))),
        options=draw(st.sampled_from(TCP_OPTIONS)),
        ip_options=draw(st.sampled_from(IP_OPTIONS[version])),
        ports=(draw(st.integers(0, 65535)), draw(st.integers(0, 65535))),
        ack=draw(st.integers(0, 2**32 - 1)),
        window=draw(st.integers(0, 65535)),
        urgent=draw(st.integers(0, 65535)),
    )
