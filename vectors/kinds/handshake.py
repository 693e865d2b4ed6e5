"""Kinds made of messages: whole handshakes, cookies, transport data (§5.4.2 to §5.4.7).

Every random value is an input, so each byte of each message is fixed.
"""

from __future__ import annotations

from vectors.kinds.base import Compute, Computed, Intermediates, plain
from vectors.model import Json
from wgpy.protocol import noise
from wgpy.protocol.constants import TYPE_TRANSPORT
from wgpy.protocol.cookie import MacChecker, MacMaker, cookie_key, mac1_key
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.messages import TRANSPORT_HEADER, Initiation, Response
from wgpy.protocol.packet import padded_size

_LIFETIME = 120 * 10**9
_SECRETS = (
    "initiator_static",
    "responder_static",
    "preshared_key",
    "initiator_ephemeral",
    "responder_ephemeral",
    "timestamp",
)


def _handshake(crypto: Crypto, inputs: Json) -> Computed:
    """Both messages, signed, and the transport keys; steps of both sides."""
    value = {name: bytes.fromhex(inputs[name]) for name in _SECRETS}
    steps: Intermediates = []

    def trace(role: str) -> noise.Trace:
        return lambda token, name, data: steps.append((f"{role} {token}", name, data))

    initiator_public = crypto.public_key(value["initiator_static"])
    responder_public = crypto.public_key(value["responder_static"])
    static_static = crypto.dh(value["initiator_static"], responder_public)
    unsigned, sent = noise.create_initiation(
        crypto,
        static_public=initiator_public,
        remote_static=responder_public,
        static_static=static_static,
        ephemeral_private=value["initiator_ephemeral"],
        sender_index=inputs["initiator_index"],
        timestamp=value["timestamp"],
        trace=trace("initiator"),
    )
    initiation = MacMaker(crypto, responder_public, _LIFETIME).sign(unsigned.encode(), 0)
    opened = noise.open_static(
        crypto,
        Initiation.parse(initiation),
        static_private=value["responder_static"],
        static_public=responder_public,
        trace=trace("responder"),
    )
    if opened is None or not noise.open_timestamp(opened, unsigned, static_static=static_static):
        raise AssertionError("our own initiation does not open")
    answer, responder_keys = noise.create_response(
        opened,
        unsigned,
        preshared_key=value["preshared_key"],
        ephemeral_private=value["responder_ephemeral"],
        sender_index=inputs["responder_index"],
    )
    response = MacMaker(crypto, initiator_public, _LIFETIME).sign(answer.encode(), 0)
    keys = noise.consume_response(
        crypto,
        sent,
        Response.parse(response),
        static_private=value["initiator_static"],
        preshared_key=value["preshared_key"],
        trace=trace("initiator"),
    )
    if keys is None or keys != noise.TransportKeys(responder_keys.receive, responder_keys.send):
        raise AssertionError("the two sides disagree")
    steps += [
        ("macs", "mac1_key_of_initiation", mac1_key(crypto, responder_public)),
        ("macs", "mac1_key_of_response", mac1_key(crypto, initiator_public)),
        ("macs", "cookie_key_of_initiator", cookie_key(crypto, initiator_public)),
        ("macs", "cookie_key_of_responder", cookie_key(crypto, responder_public)),
    ]
    expected = {
        "initiator_public": initiator_public.hex(),
        "responder_public": responder_public.hex(),
        "initiation": initiation.hex(),
        "response": response.hex(),
        "initiator_sends": keys.send.hex(),
        "responder_sends": keys.receive.hex(),
    }
    return Computed(expected, steps)


def _cookie(crypto: Crypto, inputs: Json) -> Computed:
    """A refused message, the cookie reply, and the next message with mac2."""
    responder_public = bytes.fromhex(inputs["responder_public"])
    draws = [bytes.fromhex(inputs["secret"]), bytes.fromhex(inputs["nonce"])]
    checker = MacChecker(crypto, responder_public, lambda _size: draws.pop(0), _LIFETIME)
    maker = MacMaker(crypto, responder_public, _LIFETIME)
    source = Endpoint.parse(inputs["source"])
    first = maker.sign(bytes.fromhex(inputs["first_message"]), 0)
    reply = checker.reply(first, inputs["sender_index"], source, 0)
    if not checker.mac1_ok(first) or not maker.receive(reply, 0):
        raise AssertionError("our own cookie reply does not open")
    second = maker.sign(bytes.fromhex(inputs["second_message"]), 1)
    if not checker.mac2_ok(second, source, 1):
        raise AssertionError("our own mac2 does not fit")
    cookie = crypto.mac(bytes.fromhex(inputs["secret"]), source.ip + source.port.to_bytes(2))
    return plain(
        {
            "cookie_key": cookie_key(crypto, responder_public).hex(),
            "first_message_signed": first.hex(),
            "cookie": cookie.hex(),
            "cookie_reply": reply.encode().hex(),
            "second_message_signed": second.hex(),
        }
    )


def _transport(crypto: Crypto, inputs: Json) -> Computed:
    packet = bytes.fromhex(inputs["packet"])
    counter = int(inputs["counter"])
    padded = packet.ljust(padded_size(len(packet), inputs["mtu"]), b"\0")
    sealed = crypto.aead(bytes.fromhex(inputs["key"])).seal(counter, padded)
    header = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, inputs["receiver_index"], counter)
    return plain({"plaintext_size": len(padded), "datagram": (header + sealed).hex()})


KINDS: dict[str, Compute] = {
    "handshake": _handshake,
    "cookie": _cookie,
    "transport": _transport,
}
