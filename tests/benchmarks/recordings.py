"""Made-up recordings: round numbers, so that a test can say what must come out."""

from __future__ import annotations

from benchmarks.model import Distribution, Recording, Sample

SYSTEM = (
    # figure, unit, implementation, values by repetition
    ("tcp1-up.goodput", "bit/s", "none", (2e10, 2e10, 2e10)),
    ("tcp1-up.goodput", "bit/s", "wireguard-go", (5e8, 1e9, 2e9)),
    ("tcp1-up.goodput", "bit/s", "wgpy", (4.5e9, 9e9, 1.8e10)),
    ("tcp1-up.cpu_per_gb", "s/GB", "wireguard-go", (17.0, 17.0, 17.0)),
    ("tcp1-up.cpu_per_gb", "s/GB", "wgpy", (3.0, 3.0, 3.0)),
    ("tcp1-up.cpu_per_gb_left_user", "s/GB", "wgpy", (1.0, 1.0, 1.0)),
    ("tcp1-up.peak_rss", "B", "wgpy", (80e6, 85e6, 95e6)),
    ("ping.mean", "s", "wireguard-go", (100e-6, 100e-6, 100e-6)),
    ("ping.mean", "s", "wgpy", (70e-6, 80e-6, 90e-6)),
)


def system(scale: float = 1.0) -> Recording:
    """Two settings with the same figures; `scale` multiplies wgpy's."""
    recording = Recording("system", {"cpu": "A | B", "kernel": "Linux 6", "date": "2026-01-01"})
    for setting in ("free", "pinned"):
        for figure, unit, name, values in SYSTEM:
            factor = scale if name == "wgpy" else 1.0
            recording.samples += [
                Sample(figure, unit, name, value * factor, setting, repetition)
                for repetition, value in enumerate(values)
            ]
        recording.distributions.append(
            Distribution("ping.round_trip", "s", "wgpy", (7e-5, 8e-5, 2e-4), 3, setting)
        )
    return recording


def scale() -> Recording:
    """A curve that grows by a fifth, and a flat one."""
    recording = Recording("scale", {"cpu": "A"})
    for x, peers, entries in ((1, 10e-6, 9e-6), (100, 11e-6, 9e-6), (10_000, 12e-6, 9e-6)):
        for repetition in range(3):
            recording.samples += [
                Sample("peers.per_packet", "s", "wgpy", peers, "", repetition, float(x)),
                Sample("entries.per_packet", "s", "wgpy", entries, "", repetition, float(x)),
            ]
    recording.samples.append(Sample("handshakes.answered", "1/s", "wgpy", 5000.0))
    return recording
