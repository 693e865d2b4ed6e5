"""iperf3's JSON, as versions 3.9 to 3.12 write it, and what may go wrong with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.iperf import IperfError, parse_tcp, parse_udp

TCP: dict[str, Any] = {
    "start": {"version": "iperf 3.12"},
    "end": {
        "sum_sent": {"seconds": 2.001, "bytes": 1_000_100, "retransmits": 7},
        "sum_received": {"seconds": 2.0, "bytes": 1_000_000},
        "sender_tcp_congestion": "bbr",
    },
}
UDP: dict[str, Any] = {
    "end": {
        "sum_sent": {"seconds": 1.0, "packets": 1000, "lost_packets": 0},
        "sum_received": {"seconds": 2.0, "packets": 1000, "lost_packets": 100},
    }
}


def udp(**received: Any) -> dict[str, Any]:
    document = copy.deepcopy(UDP)
    document["end"]["sum_received"].update(received)
    return document


def test_tcp_goodput_counts_what_the_receiver_got() -> None:
    result = parse_tcp(TCP)
    assert result.goodput == 4_000_000
    assert result.retransmits == 7
    assert result.congestion == "bbr"


def test_tcp_without_retransmits_as_reverse_mode_of_old_versions() -> None:
    document = copy.deepcopy(TCP)
    del document["end"]["sum_sent"]["retransmits"]
    assert parse_tcp(document).retransmits == 0


def test_udp_rate_and_loss() -> None:
    result = parse_udp(UDP)
    assert (result.sent, result.lost, result.received) == (1000, 100, 900)
    assert result.rate == 450
    assert result.loss == pytest.approx(0.1)


def test_udp_tail_lost_after_the_last_one_seen_counts_as_lost() -> None:
    """The receiver knows sequence numbers only up to the last datagram it saw."""
    assert parse_udp(udp(packets=500, lost_packets=10)).lost == 510


def test_udp_where_nothing_arrived_is_total_loss_and_not_none() -> None:
    result = parse_udp(udp(packets=0, lost_packets=0))
    assert result.loss == 1 and result.rate == 0


def test_udp_more_received_than_sent_is_capped() -> None:
    """Duplicates must not raise the rate, nor make the loss negative."""
    assert parse_udp(udp(packets=1005, lost_packets=-5)).received == 1000


@pytest.mark.parametrize("parse", [parse_tcp, parse_udp])
def test_an_error_is_told_in_iperfs_words(parse: Any) -> None:
    with pytest.raises(IperfError, match="unable to connect"):
        parse({"start": {}, "end": {}, "error": "unable to connect to server"})


@pytest.mark.parametrize("parse", [parse_tcp, parse_udp])
@pytest.mark.parametrize("end", [None, {}, {"sum_sent": {}}, {"sum_received": 5, "sum_sent": 1}])
def test_incomplete_results_are_refused(parse: Any, end: Any) -> None:
    with pytest.raises(IperfError):
        parse({"end": end})
