"""Metrics of plain tunnels, scraped over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.tunnel import make_ends
from tests.control.conftest import PEER, scrape
from tests.control.plane import Plane
from tests.support.netns import Lab
from wgpy.cli.metrics import metrics
from wgpy.metrics import InterfaceCollector, serve


@pytest.mark.usefixtures("plane")
def test_a_scrape() -> None:
    found = scrape(serve(InterfaceCollector(), "127.0.0.1", 0))
    peer = f'interface="wgx",peer="{PEER.base64}"'
    for sample, value in {
        'wgpy_up{interface="wgx"}': 1,
        'wgpy_link_up{interface="wgx"}': 1,
        'wgpy_mtu_bytes{interface="wgx"}': 1420,
        'wgpy_peers{interface="wgx"}': 1,
        'wgpy_drops_total{direction="egress",interface="wgx",reason="MALFORMED"}': 1,
        'wgpy_forwarded_packets_total{interface="wgx",verdict="encrypted"}': 0,
        f'wgpy_peer_bytes_total{{direction="ingress",{peer}}}': 0,
        f"wgpy_peer_latest_handshake_seconds{{{peer}}}": 0,
    }.items():
        assert found[sample] == value, sample


@pytest.mark.usefixtures("plane")
def test_what_comes_and_goes(tmp_path: Path) -> None:
    """Unnamed, whoever runs; named, `up` says whether it does."""
    port = serve(InterfaceCollector(), "127.0.0.1", 0)
    named = serve(InterfaceCollector(["wgx", "wgz"]), "127.0.0.1", 0)
    second = Plane(tmp_path, name="wgy")
    assert scrape(port)['wgpy_up{interface="wgy"}'] == 1
    second.close()
    assert 'wgpy_up{interface="wgy"}' not in scrape(port)
    found = scrape(named)
    assert (found['wgpy_up{interface="wgx"}'], found['wgpy_up{interface="wgz"}']) == (1, 0)


def test_another_implementation_has_what_its_uapi_tells(plane: Plane) -> None:
    plane.server.close()
    found = scrape(serve(InterfaceCollector(), "127.0.0.1", 0))
    assert found['wgpy_peers{interface="wgx"}'] == 1
    assert not [name for name in found if name.startswith("wgpy_drops")]


@pytest.mark.parametrize(
    "listen", ["9586", ":9586", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "::1:9586"]
)
def test_a_bad_address_is_said(listen: str) -> None:
    done = CliRunner().invoke(metrics, ["--listen", listen])
    assert done.exit_code == 2 and f"{listen!r} is not ADDRESS:PORT" in done.output


@pytest.mark.usefixtures("plane")
def test_a_port_in_use_is_said() -> None:
    port = serve(InterfaceCollector(), "127.0.0.1", 0)
    done = CliRunner().invoke(metrics, ["--listen", f"127.0.0.1:{port}"])
    assert done.exit_code == 1 and "Address already in use" in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.root
def test_the_program_on_a_real_tunnel(lab: Lab, tmp_path: Path) -> None:
    client, server = make_ends(lab, tmp_path)
    server.wgpy("up", str(server.file))
    client.wgpy("up", str(client.file))
    client.namespace.run("ping", "-c1", "-W5", "10.5.0.2")
    wgpy = str(Path(sys.executable).with_name("wgpy"))
    process = subprocess.Popen(
        client.namespace.command(
            wgpy, "metrics", client.interface, "--listen", "127.0.0.1:0", "--json"
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with client.namespace.entered():
            text = urllib.request.urlopen(url, timeout=20).read().decode()
    finally:
        process.terminate()
        assert process.wait(20) == 0
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    name = client.interface
    encrypted = f'wgpy_forwarded_packets_total{{interface="{name}",verdict="encrypted"}}'
    assert float(samples[encrypted]) >= 1
    handshakes = [float(v) for k, v in samples.items() if "latest_handshake" in k]
    assert len(handshakes) == 1 and handshakes[0] > 1_600_000_000
