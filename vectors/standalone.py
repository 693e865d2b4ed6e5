#!/usr/bin/env python3
"""Verify WireGuard test vectors with nothing but hashlib and package cryptography.

    python3 standalone.py vectors/data/*.json

Written from the whitepaper, independently of wgpy, to be read beside it.  Each function
named after a kind computes `expected` from `inputs`; `main` compares.
"""

import hashlib
import hmac
import ipaddress
import json
import pathlib
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

S = 10**9
LIMIT = 2**64 - 2**13 - 1
unhex = bytes.fromhex


# --- §5.4: the primitives -------------------------------------------------------------


def HASH(data):
    return hashlib.blake2s(data).digest()


def MAC(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def HMAC(key, data):
    return hmac.new(key, data, hashlib.blake2s).digest()


def KDF(n, key, data):
    t0, out = HMAC(key, data), [b""]
    for i in range(1, n + 1):
        out.append(HMAC(t0, out[-1] + bytes([i])))
    return out[1:]


def PUB(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def DH(private, public):
    """None when the result is zero."""
    try:
        key = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(key)
    except ValueError:
        return None


def nonce(counter):
    return bytes(4) + struct.pack("<Q", counter)


def SEAL(key, counter, plaintext, aad):
    return ChaCha20Poly1305(key).encrypt(nonce(counter), plaintext, aad)


def OPEN(key, counter, sealed, aad):
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), sealed, aad)
    except InvalidTag:
        return None


def subkey(key, nonce24):
    """HChaCha20: a ChaCha20 block without the final addition of its input."""
    block = Cipher(algorithms.ChaCha20(key, nonce24[:16]), None).encryptor().update(bytes(64))
    words = list(struct.unpack("<16I", block))
    start = struct.unpack("<4I", b"expand 32-byte k") + (0,) * 8 + struct.unpack(
        "<4I", nonce24[:16]
    )
    plain = [(w - s) % 2**32 for w, s in zip(words, start, strict=True)]
    return struct.pack("<8I", *plain[:4], *plain[12:])


def XSEAL(key, nonce24, plaintext, aad):
    return ChaCha20Poly1305(subkey(key, nonce24)).encrypt(bytes(4) + nonce24[16:], plaintext, aad)


def XOPEN(key, nonce24, sealed, aad):
    try:
        cipher = ChaCha20Poly1305(subkey(key, nonce24))
        return cipher.decrypt(bytes(4) + nonce24[16:], sealed, aad)
    except InvalidTag:
        return None


def hexed(data):
    return None if data is None else data.hex()


CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
CONSTANTS = {
    "CONSTRUCTION": CONSTRUCTION, "IDENTIFIER": IDENTIFIER,
    "LABEL_MAC1": b"mac1----", "LABEL_COOKIE": b"cookie--",
    "HASH_OF_CONSTRUCTION": HASH(CONSTRUCTION),
    "HASH_OF_IDENTIFIER": HASH(HASH(CONSTRUCTION) + IDENTIFIER),
    "TYPE_INITIATION": 1, "TYPE_RESPONSE": 2, "TYPE_COOKIE_REPLY": 3, "TYPE_TRANSPORT": 4,
    "INITIATION_SIZE": 148, "RESPONSE_SIZE": 92, "COOKIE_REPLY_SIZE": 64,
    "TRANSPORT_HEADER_SIZE": 16, "KEEPALIVE_SIZE": 32, "PADDING_MULTIPLE": 16,
    "cookie_lifetime": 120 * S, "rekey_after_messages": 2**60, "reject_after_messages": LIMIT,
    "rekey_after_time": 120 * S, "reject_after_time": 180 * S, "rekey_attempt_time": 90 * S,
    "rekey_timeout": 5 * S, "keepalive_timeout": 10 * S,
}  # fmt: skip


def constant(i):
    value = CONSTANTS[i["name"]]
    return {"value": value.hex() if isinstance(value, bytes) else str(value)}


def aead_open(i):
    opened = OPEN(unhex(i["key"]), int(i["counter"]), unhex(i["sealed"]), unhex(i["aad"]))
    return {"plaintext": hexed(opened)}


def aead(i):
    sealed = SEAL(unhex(i["key"]), int(i["counter"]), unhex(i["plaintext"]), unhex(i["aad"]))
    return {"sealed": sealed.hex()}


def xaead(i):
    return {"sealed": XSEAL(*(unhex(i[n]) for n in ("key", "nonce", "plaintext", "aad"))).hex()}


def xaead_open(i):
    return {"plaintext": hexed(XOPEN(*(unhex(i[n]) for n in ("key", "nonce", "sealed", "aad"))))}


def mac_keys(i):
    public = unhex(i["public"])
    return {
        "mac1_key": HASH(b"mac1----" + public).hex(),
        "cookie_key": HASH(b"cookie--" + public).hex(),
    }


def tai64n(i):
    """§5.4; the low 24 bits of the nanoseconds are zero."""
    seconds, nanoseconds = divmod(int(i["wall_ns"]), S)
    stamp = struct.pack(">QI", 2**62 + 10 + seconds, nanoseconds >> 24 << 24)
    return {"timestamp": stamp.hex()}


# --- §5.4.2 to §5.4.7: the messages ---------------------------------------------------


class Noise:
    """Chaining key C and hash H; `steps` collects every intermediate value."""

    def __init__(self, role, responder_public, steps):
        self.role, self.steps = role, steps
        self.C = HASH(CONSTRUCTION)
        self.H = HASH(self.C + IDENTIFIER)
        self.mix_hash("<- s", responder_public)

    def step(self, token, name, value):
        self.steps.append({"token": f"{self.role} {token}", "name": name, "value": value.hex()})

    def mix_hash(self, token, data):
        self.H = HASH(self.H + data)
        self.step(token, "hash", self.H)

    def mix(self, token, data, *names):
        self.C, *rest = KDF(1 + len(names), self.C, data)
        self.step(token, "chaining_key", self.C)
        for name, value in zip(names, rest, strict=True):
            self.step(token, name, value)
        return rest

    def seal(self, token, key, plaintext):
        sealed = SEAL(key, 0, plaintext, self.H)
        self.mix_hash(token, sealed)
        return sealed


def signed(message, public):
    """mac1, and mac2 of zeros."""
    return message + MAC(HASH(b"mac1----" + public), message) + bytes(16)


def handshake(i, steps=None):
    """Both messages.  The initiator's steps stop at {t} and go on with the response."""
    v = {n: unhex(x) for n, x in i.items() if n.split("_")[-1] in (
        "static", "ephemeral", "key", "timestamp")}
    Si, Sr, Ei, Er = (v[n] for n in ("initiator_static", "responder_static",
                                     "initiator_ephemeral", "responder_ephemeral"))
    sending, receiving, answering = [], [], []
    initiator = Noise("initiator", PUB(Sr), sending)
    responder = Noise("responder", PUB(Sr), receiving)
    first = struct.pack("<II", 1, i["initiator_index"]) + PUB(Ei)
    for side in (initiator, responder):  # what both compute alike
        side.mix("e", PUB(Ei))
        side.mix_hash("e", PUB(Ei))
        (k,) = side.mix("es", DH(Ei, PUB(Sr)), "key")
        static = side.seal("s", k, PUB(Si))
        (k,) = side.mix("ss", DH(Si, PUB(Sr)), "key")
        stamp = side.seal("{t}", k, v["timestamp"])
    first = signed(first + static + stamp, PUB(Sr))
    initiator.steps = answering
    for side in (responder, initiator):
        side.mix("e", PUB(Er))
        side.mix_hash("e", PUB(Er))
        side.mix("ee", DH(Er, PUB(Ei)))
        side.mix("se", DH(Er, PUB(Si)))
        tau, k = side.mix("psk", v["preshared_key"], "tau", "key")
        side.mix_hash("psk", tau)
        empty = side.seal("{}", k, b"")
        T = KDF(2, side.C, b"")
        side.step("split", "initiator_sends", T[0])
        side.step("split", "responder_sends", T[1])
    second = struct.pack("<III", 2, i["responder_index"], i["initiator_index"]) + PUB(Er) + empty
    second = signed(second, PUB(Si))
    macs = {
        "mac1_key_of_initiation": HASH(b"mac1----" + PUB(Sr)),
        "mac1_key_of_response": HASH(b"mac1----" + PUB(Si)),
        "cookie_key_of_initiator": HASH(b"cookie--" + PUB(Si)),
        "cookie_key_of_responder": HASH(b"cookie--" + PUB(Sr)),
    }
    if steps is not None:
        steps += sending + receiving + answering
        steps += [{"token": "macs", "name": n, "value": k.hex()} for n, k in macs.items()]
    return {
        "initiator_public": PUB(Si).hex(), "responder_public": PUB(Sr).hex(),
        "initiation": first.hex(), "response": second.hex(),
        "initiator_sends": T[0].hex(), "responder_sends": T[1].hex(),
    }  # fmt: skip


def address(text):
    host, _, port = text.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")).packed + struct.pack(">H", int(port))


def cookie_reply(secret, source, nonce24, public, receiver, mac1):
    cookie = MAC(secret, address(source))
    sealed = XSEAL(HASH(b"cookie--" + public), nonce24, cookie, mac1)
    return cookie, struct.pack("<II", 3, receiver) + nonce24 + sealed


def cookie(i):
    public = unhex(i["responder_public"])
    first = signed(unhex(i["first_message"])[:-32], public)
    second = signed(unhex(i["second_message"])[:-32], public)[:-16]
    secret, nonce24, mac1 = unhex(i["secret"]), unhex(i["nonce"]), first[-32:-16]
    tau, reply = cookie_reply(secret, i["source"], nonce24, public, i["sender_index"], mac1)
    return {
        "cookie_key": HASH(b"cookie--" + public).hex(),
        "first_message_signed": first.hex(),
        "cookie": tau.hex(),
        "cookie_reply": reply.hex(),
        "second_message_signed": (second + MAC(tau, second)).hex(),
    }


def transport(i):
    packet = unhex(i["packet"])
    padded = packet + bytes(min(-len(packet) % 16, max(0, i["mtu"] - len(packet))))
    header = struct.pack("<IIQ", 4, i["receiver_index"], int(i["counter"]))
    sealed = SEAL(unhex(i["key"]), int(i["counter"]), padded, b"")
    return {"plaintext_size": len(padded), "datagram": (header + sealed).hex()}


# --- §5.4.6, §2: tables ---------------------------------------------------------------


def replay(i):
    seen, verdicts = set(), []
    for counter in map(int, i["counters"]):
        if counter in seen:
            behind = max(seen) - counter >= i["window"]
            verdicts.append("COUNTER_TOO_OLD" if behind else "REPLAYED")
        elif seen and max(seen) - counter >= i["window"]:
            verdicts.append("COUNTER_TOO_OLD")
        else:
            seen.add(counter)
            verdicts.append("accept")
    return {"verdicts": verdicts}


def allowed_ips(i):
    owners = {}
    for action, prefix, owner in i["routes"]:
        network = ipaddress.ip_network(prefix, strict=False)
        if action == "insert":
            owners[network] = owner
        elif owners.get(network) == owner:
            del owners[network]
    found = []
    for ip in map(ipaddress.ip_address, i["lookups"]):
        matches = [n for n in owners if n.version == ip.version and ip in n]
        found.append(owners[max(matches, key=lambda n: n.prefixlen)] if matches else None)
    return {"owners": found}


# --- §6: timers -----------------------------------------------------------------------


class Timers:
    """The rules of §6 for one peer that answers initiations unless muted."""

    def __init__(self, keepalive):
        self.sent, self.muted, self.every = [], False, keepalive
        self.born = self.initiator = self.tried = self.wanted = None
        self.retry = self.owe = self.dead = self.persistent = None
        self.queue, self.late = [], False
        if keepalive:
            self.queue.append("keepalive")
            self.flush(0)

    def out(self, now, what):
        self.sent.append([now, what])
        self.owe = None  # §6.5: anything sent shows that we live
        self.persistent = now + self.every * S if self.every else None
        if what == "data" and self.dead is None:
            self.dead = now + 15 * S

    def heard(self, now):
        self.dead = None
        self.persistent = now + self.every * S if self.every else None

    def initiate(self, now, retry=False):
        self.wanted = self.wanted if retry else now
        if self.tried is not None and now - self.tried < 5 * S:
            return
        self.tried, self.retry = now, now + 5 * S
        self.out(now, "initiation")
        if not self.muted:
            self.heard(now)
            self.begin(now, initiator=True)
            self.queue = self.queue or ["keepalive"]  # the responder waits for a first packet
            self.flush(now)

    def begin(self, now, initiator):
        self.born, self.initiator, self.retry, self.late = now, initiator, None, False

    def flush(self, now):
        if self.born is not None and now - self.born < 180 * S:
            while self.queue:
                self.out(now, self.queue.pop(0))
            if self.initiator and now - self.born >= 120 * S:
                self.initiate(now)
        elif self.queue:
            self.initiate(now)

    def event(self, now, what):
        if what in ("mute", "unmute"):
            self.muted = what == "mute"
        elif what == "send":
            self.queue.append("data")
            self.flush(now)
        elif what == "initiate" or (self.born is None and what == "receive"):
            self.heard(now)
            self.out(now, "response")
            self.heard(now)  # the initiator's first packet
            self.begin(now, initiator=False)
        if what == "receive" and self.owe is None:
            self.owe = now + 10 * S
        if what in ("receive", "receive-keepalive"):
            self.heard(now)
            if self.initiator and now - self.born >= 165 * S and not self.late:
                self.late = True
                self.initiate(now)

    def run(self, until):
        while True:
            due = [
                (at, name) for name in ("retry", "owe", "dead", "persistent")
                if (at := getattr(self, name)) is not None and at <= until
            ]
            if not due:
                return
            now, name = min(due)
            setattr(self, name, None)
            if name == "dead":
                self.initiate(now)
            elif name == "retry" and now - self.wanted < 90 * S:
                self.initiate(now, retry=True)
            elif name == "retry":
                self.queue.clear()
            else:
                self.queue = self.queue or ["keepalive"]
                self.persistent = now + self.every * S if self.every else None
                self.flush(now)


def timers(i):
    model = Timers(i["persistent_keepalive"])
    for at, what in i["script"]:
        model.run(round(at * S))
        model.event(round(at * S), what)
    model.run(i["until"] * S)
    return {"sent": model.sent}


# --- what must be refused -------------------------------------------------------------


def mutate(message, mutations):
    data = bytearray(message)
    for m in mutations:
        change, at = unhex(m.get("data", "")), m.get("offset", 0)
        if m["op"] == "xor":
            for place, byte in enumerate(change, at):
                data[place] ^= byte
        elif m["op"] == "put":
            data[at : at + len(change)] = change
        elif m["op"] == "truncate":
            del data[m["size"] :]
        else:
            data += change
    return bytes(data)


def judge(i, good, data, again):
    """The first check of the receiver that refuses `data`."""
    kind = int.from_bytes(data[:4], "little")
    if kind not in (1, 2, 3, 4):
        return "type"
    if len(data) != {1: 148, 2: 92, 3: 64}.get(kind, max(32, len(data))):
        return "length"
    victim = "responder" if i["message"] in ("initiation", "transport") else "initiator"
    public = unhex(good[f"{victim}_public"])
    if kind in (1, 2) and data[-32:-16] != MAC(HASH(b"mac1----" + public), data[:-32]):
        return "mac1"
    index = int.from_bytes(data[8:12] if kind == 2 else data[4:8], "little")
    if kind != 1 and index != i[f"{victim}_index"]:
        return "index"
    return {1: judge_initiation, 2: judge_response, 3: judge_cookie, 4: judge_data}[kind](
        i, good, data, again
    )


def judge_initiation(i, good, data, again):
    Sr, N = unhex(i["responder_static"]), Noise("", unhex(good["responder_public"]), [])
    E = data[8:40]
    N.mix("e", E)
    N.mix_hash("e", E)
    shared = DH(Sr, E)
    if shared is None:
        return "low-order"
    (k,) = N.mix("es", shared, "key")
    who = OPEN(k, 0, data[40:88], N.H)
    if who is None:
        return "static"
    N.mix_hash("s", data[40:88])
    if who.hex() != i.get("configured_peer", good["initiator_public"]):
        return "identity"
    (k,) = N.mix("ss", DH(Sr, who), "key")
    if OPEN(k, 0, data[88:116], N.H) is None:
        return "timestamp"
    return "freshness" if again else "accepted"


def judge_response(i, good, data, again):
    if again:
        return "index"  # the first one ended the handshake; its index names a session now
    N = Noise("", unhex(good["responder_public"]), [])
    Si, Ei, first = unhex(i["initiator_static"]), unhex(i["initiator_ephemeral"]), unhex(
        good["initiation"]
    )
    N.mix("e", PUB(Ei))
    N.mix_hash("e", PUB(Ei))
    N.mix("es", DH(Ei, unhex(good["responder_public"])), "key")
    N.mix_hash("s", first[40:88])
    N.mix("ss", DH(Si, unhex(good["responder_public"])), "key")
    N.mix_hash("{t}", first[88:116])
    E = data[12:44]
    N.mix("e", E)
    N.mix_hash("e", E)
    if DH(Ei, E) is None or DH(Si, E) is None:
        return "low-order"
    N.mix("ee", DH(Ei, E))
    N.mix("se", DH(Si, E))
    psk = unhex(i.get("victim_preshared_key", i["preshared_key"]))
    tau, k = N.mix("psk", psk, "tau", "key")
    N.mix_hash("psk", tau)
    return "empty" if OPEN(k, 0, data[44:60], N.H) is None else "accepted"


def judge_cookie(_i, good, data, _again):
    key = HASH(b"cookie--" + unhex(good["responder_public"]))
    mac1 = unhex(good["initiation"])[-32:-16]
    return "cookie" if XOPEN(key, data[8:32], data[32:64], mac1) is None else "accepted"


def judge_data(_i, good, data, again):
    counter = int.from_bytes(data[8:16], "little")
    if counter >= LIMIT:
        return "counter"
    packet = OPEN(unhex(good["initiator_sends"]), counter, data[16:], b"")
    if packet is None:
        return "tag"
    if again:
        return "replay"
    length = int.from_bytes(packet[2:4], "big")
    if packet[0] >> 4 != 4 or not 4 * (packet[0] & 15) <= length <= len(packet):
        return "inner"
    return "accepted" if packet[12:15] == bytes([10, 0, 0]) else "source"


def invalid(i):
    good = handshake(i)
    message = i["message"]
    if message == "transport":
        base = transport({"key": good["initiator_sends"], "receiver_index": i["responder_index"],
                          "counter": i["counter"], "packet": i["packet"], "mtu": 1420})
        base = unhex(base["datagram"])
    elif message == "cookie-reply":
        mac1 = unhex(good["initiation"])[-32:-16]
        _, base = cookie_reply(unhex(i["secret"]), i["source"], unhex(i["nonce"]),
                               unhex(good["responder_public"]), i["initiator_index"], mac1)
    else:
        base = unhex(good[message])
    data = mutate(unhex(good["initiation"]) if i.get("reflect") else base, i["mutations"])
    if i.get("resign"):
        victim = "responder" if message == "initiation" else "initiator"
        key = HASH(b"mac1----" + unhex(good[f"{victim}_public"]))
        data = data[:-32] + MAC(key, data[:-32]) + data[-16:]
    return {"datagram": data.hex(), "check": judge(i, good, data, i.get("deliveries", 1) > 1)}


# --- the configuration socket ---------------------------------------------------------

EINVAL, EPROTO = 22, 71


class Refused(Exception):
    pass


def check(ok, errno=EINVAL):
    if not ok:
        raise Refused(errno)


def number(text, most):
    check(text.isascii() and text.isdigit() and int(text) <= most)
    return int(text)


def key_hex(text):
    check(len(text) == 64 and not set(text.lower()) - set("0123456789abcdef"))
    return text.lower()


def endpoint(text):
    host, colon, port = text.rpartition(":")
    check(colon == ":")
    number(port, 65535)
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise Refused(EINVAL) from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def network(text):
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Refused(EINVAL) from None


def apply(device, request):
    """One set request on a copy of `device`, which is returned."""
    new = json.loads(json.dumps(device))
    peer = None
    for line in request.strip().split("\n")[1:]:
        key, equals, value = line.partition("=")
        check(equals, EPROTO)
        if key in ("replace_peers", "remove", "update_only", "replace_allowed_ips"):
            check(value == "true")
        if key == "public_key":
            name, fresh = key_hex(value), {"psk": "0" * 64, "keepalive": 0, "ips": [], "end": None}
            known = name in new["peers"]
            peer = new["peers"].setdefault(name, fresh)
        elif key in ("private_key", "listen_port", "fwmark", "replace_peers"):
            check(peer is None)
            if key == "private_key":
                new["private"] = key_hex(value)
            elif key == "listen_port":
                new["port"] = number(value, 65535)
            elif key == "fwmark":
                new["mark"] = number(value, 2**32 - 1)
            else:
                new["peers"] = {}
        else:
            check(peer is not None)
            if key == "remove" or (key == "update_only" and not known):
                new["peers"].pop(name)
            elif key == "preshared_key":
                peer["psk"] = key_hex(value)
            elif key == "endpoint":
                peer["end"] = endpoint(value)
            elif key == "persistent_keepalive_interval":
                peer["keepalive"] = number(value, 65535)
            elif key == "replace_allowed_ips":
                peer["ips"] = []
            elif key == "allowed_ip":
                for other in new["peers"].values():
                    other["ips"] = [ip for ip in other["ips"] if ip != network(value)]
                peer["ips"].append(network(value))
            else:
                check(key == "update_only" or (key, value) == ("protocol_version", "1"))
    return new


def uapi(i):
    device = {"private": None, "port": 0, "mark": 0, "peers": {}}
    replies = []
    for request in i["sets"]:
        try:
            device = apply(device, request)
            replies.append("errno=0\n\n")
        except Refused as refusal:
            replies.append(f"errno=-{refusal.args[0]}\n\n")
    lines = [f"private_key={device['private']}"] if device["private"] else []
    lines.append(f"listen_port={device['port']}")
    lines += [f"fwmark={device['mark']}"] if device["mark"] else []
    for name, peer in device["peers"].items():
        lines += [f"public_key={name}", f"preshared_key={peer['psk']}", "protocol_version=1"]
        lines += [f"endpoint={peer['end']}"] if peer["end"] else []
        lines += [
            "last_handshake_time_sec=0", "last_handshake_time_nsec=0", "tx_bytes=0", "rx_bytes=0",
            f"persistent_keepalive_interval={peer['keepalive']}",
        ]
        lines += [f"allowed_ip={ip}" for ip in peer["ips"]]
    # The order of keys within a peer is free; compare as sets of lines per device.
    return {"replies": replies, "get": "\n".join([*lines, "errno=0\n\n"])}


# --- the files ------------------------------------------------------------------------

KINDS = {
    "constant": constant, "aead": aead, "aead-open": aead_open, "xaead": xaead,
    "xaead-open": xaead_open, "mac-keys": mac_keys, "tai64n": tai64n, "cookie": cookie,
    "transport": transport, "replay": replay, "allowed-ips": allowed_ips, "timers": timers,
    "invalid": invalid, "uapi": uapi,
    "hash": lambda i: {"hash": HASH(unhex(i["data"])).hex()},
    "mac": lambda i: {"mac": MAC(unhex(i["key"]), unhex(i["data"])).hex()},
    "hmac": lambda i: {"hmac": HMAC(unhex(i["key"]), unhex(i["data"])).hex()},
    "kdf": lambda i: {
        "outputs": [o.hex() for o in KDF(i["n"], unhex(i["key"]), unhex(i["data"]))]
    },
    "dh": lambda i: {"shared": hexed(DH(unhex(i["private"]), unhex(i["public"])))},
}  # fmt: skip


def verify(document):
    """Problems of a parsed file, as sentences."""
    canonical = json.dumps(
        document["groups"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    if HASH(canonical.encode()).hex() != document["digest"]:
        yield "the digest does not fit the content"
    for group in document["groups"]:
        for test in group["tests"]:
            steps = []
            if group["kind"] == "handshake":
                computed = handshake(test["inputs"], steps)
            else:
                computed = KINDS[group["kind"]](test["inputs"])
            expected = test["expected"]
            if group["kind"] == "uapi":
                for side in (computed, expected):
                    side["get"] = sorted(side["get"].splitlines())
            if computed != expected:
                yield f"tcId {test['tcId']} ({test['comment']}): {computed} is not {expected}"
            if steps != test.get("intermediates", []):
                yield f"tcId {test['tcId']} ({test['comment']}): intermediates differ"


def main(paths):
    status = 0
    for path in paths:
        document = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        problems = list(verify(document))
        count = sum(len(group["tests"]) for group in document["groups"])
        print(f"{path}: {count} vectors, {len(problems)} problems")
        for problem in problems:
            print("  ", problem)
        status |= bool(problems)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
