"""Inputs of the file `uapi`."""

from __future__ import annotations

from vectors.entropy import SeededEntropy
from vectors.generators.builder import Builder, Wish
from wgpy.protocol.crypto import backend


def uapi(seed: int, builder: Builder) -> None:
    """Every key, every flag, and the errors."""
    draw = SeededEntropy(seed, "uapi")
    crypto = backend("openssl")
    private = draw.private_key().hex()
    a, b = (crypto.public_key(draw.private_key()).hex() for _ in range(2))
    psk = draw(32).hex()
    base = (
        f"set=1\nprivate_key={private}\nreplace_peers=true\npublic_key={a}\n"
        f"preshared_key={psk}\nendpoint=192.0.2.1:51820\npersistent_keepalive_interval=25\n"
        "replace_allowed_ips=true\nallowed_ip=10.0.0.0/24\nallowed_ip=fd00::/64\n\n"
    )

    def on(*lines: str) -> list[str]:
        return [base, "set=1\n" + "".join(f"{line}\n" for line in lines) + "\n"]

    good = {
        "nothing": ["set=1\n\n"],
        "a device and a peer": [base],
        "fwmark": on("fwmark=51820"),
        "fwmark off": [*on("fwmark=51820"), "set=1\nfwmark=0\n\n"],
        "a second peer takes a prefix": on(f"public_key={b}", "allowed_ip=10.0.0.0/24"),
        "IPv6 endpoint": on(f"public_key={b}", "endpoint=[2001:db8::1]:51820"),
        "remove a peer": on(f"public_key={a}", "remove=true"),
        "remove an unknown peer": on(f"public_key={b}", "remove=true"),
        "update_only leaves an unknown peer out": on(
            f"public_key={b}", "update_only=true", "allowed_ip=10.9.0.0/16"
        ),
        "preshared key removed": on(f"public_key={a}", f"preshared_key={bytes(32).hex()}"),
        "keepalive off": on(f"public_key={a}", "persistent_keepalive_interval=0"),
        "replace allowed IPs": on(
            f"public_key={a}", "replace_allowed_ips=true", "allowed_ip=10.8.0.0/16"
        ),
        "replace peers": on("replace_peers=true", f"public_key={b}"),
        "protocol version": on(f"public_key={a}", "protocol_version=1"),
    }
    bad = {
        "unknown key": on("colour=red"),
        "no equals sign": on("private_key"),
        "flag is not true": on("replace_peers=yes"),
        "short key": on("private_key=00ff"),
        "port too large": on("listen_port=65536"),
        "keepalive too large": on(f"public_key={a}", "persistent_keepalive_interval=65536"),
        "prefix too long": on(f"public_key={a}", "allowed_ip=10.0.0.0/33"),
        "endpoint without port": on(f"public_key={a}", "endpoint=192.0.2.1"),
        "peer key before a peer": on("allowed_ip=10.0.0.0/24"),
        "other protocol version": on(f"public_key={a}", "protocol_version=2"),
    }
    where = "cross-platform userspace configuration protocol"
    builder.group(
        "uapi",
        where,
        "`sets` in order on a fresh device; negative errno in replies to a set",
        [Wish(comment, {"sets": sets}) for comment, sets in good.items()],
    )
    builder.group(
        "uapi",
        where,
        "the last request is refused and changes nothing",
        [Wish(comment, {"sets": sets}, "invalid") for comment, sets in bad.items()],
    )
