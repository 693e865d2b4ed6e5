"""A capture and a subscriber on one interface, through the control socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.plane import Plane
from wgpy.capture.record import Recording
from wgpy.control.client import ControlClient, ControlFailed
from wgpy.dataplane.interface import Interface


def record(interface: Interface, path: str, rotate: int) -> Recording:
    return Recording(interface, Path(path), rotate=rotate)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, record=record)
    yield made
    made.close()


def drops(client: ControlClient) -> int:
    return sum(event["event"] == "drop" for event in client.events(0.3))


@pytest.mark.parametrize("first_to_go", ["capture", "subscriber"])
@pytest.mark.parametrize("first_to_come", ["capture", "subscriber"])
def test_whoever_is_left_goes_on(
    plane: Plane, tmp_path: Path, first_to_come: str, first_to_go: str
) -> None:
    """Drops are events for the subscriber and comments in the capture, until it ends itself."""
    path = tmp_path / "x.pcapng"
    capture, subscriber = (ControlClient(plane.name, tmp_path) for _ in range(2))
    begin = [
        lambda: capture.request("capture", path=str(path)),
        lambda: subscriber.subscribe("drops"),
    ]
    for each in begin if first_to_come == "capture" else begin[::-1]:
        each()
    plane.send(b"not IP")
    assert drops(subscriber) == 1
    (capture if first_to_go == "capture" else subscriber).close()
    with ControlClient(plane.name, tmp_path) as other:
        other.request("status")  # The end was handled: answers come in order.
    plane.send(b"not IP")
    if first_to_go == "capture":
        assert drops(subscriber) == 1
        subscriber.close()
    else:
        capture.request("capture")
        capture.close()
    with ControlClient(plane.name, tmp_path) as other:
        other.request("status")
    comments = path.read_bytes().count(b"MALFORMED:")
    assert comments == (1 if first_to_go == "capture" else 2)
    assert not plane.engine.trace_drops and not plane.interface.listeners


def test_a_data_plane_that_cannot_record_says_so(tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    try:
        with (
            ControlClient(plane.name, tmp_path) as client,
            pytest.raises(ControlFailed, match="does not record"),
        ):
            client.request("capture", path=str(tmp_path / "x"))
    finally:
        plane.close()


def test_one_capture_at_a_time(plane: Plane, tmp_path: Path) -> None:
    first, second = (ControlClient(plane.name, tmp_path) for _ in range(2))
    with first, second:
        counts = first.request("capture", path=str(tmp_path / "x"))
        assert counts == {"inner": 0, "outer": 0, "lost": 0, "sessions": 0, "handshakes": 0}
        with pytest.raises(ControlFailed, match="captured already"):
            second.request("capture", path=str(tmp_path / "y"))
        with pytest.raises(ControlFailed, match="once per connection"):
            first.request("capture", path=str(tmp_path / "z"))
