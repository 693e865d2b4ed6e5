"""`explain --matrix`: every traffic class, in each mode."""

from __future__ import annotations

import pytest

from strict.matrix import Row, matrix
from strict.settings import Mode
from tests.strict.helpers import config, p

ENCRYPTED, PLAINTEXT, DROPPED = "encrypted", "plaintext", "dropped"


def classes(rows: list[Row], family: int) -> dict[str, tuple[str, str]]:
    return {row.traffic: (row.known, row.unknown) for row in rows if row.family == family}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("mode", "encrypt_nodes", "opted_out", "pods", "nodes", "world_in"),
    [
        (Mode.DEFAULT, False, False, (ENCRYPTED, PLAINTEXT), (PLAINTEXT, PLAINTEXT), PLAINTEXT),
        (Mode.DEFAULT, True, False, (ENCRYPTED, PLAINTEXT), (ENCRYPTED, PLAINTEXT), PLAINTEXT),
        (Mode.STRICT, False, False, (ENCRYPTED, DROPPED), (PLAINTEXT, PLAINTEXT), DROPPED),
        (Mode.STRICT, True, False, (ENCRYPTED, DROPPED), (ENCRYPTED, DROPPED), DROPPED),
        (Mode.STRICT, True, True, (ENCRYPTED, DROPPED), (PLAINTEXT, PLAINTEXT), DROPPED),
    ],
)
def test_every_class(
    family: int,
    mode: Mode,
    encrypt_nodes: bool,
    opted_out: bool,
    pods: tuple[str, str],
    nodes: tuple[str, str],
    world_in: str,
) -> None:
    rows = matrix(config(mode, node_encryption=encrypt_nodes), opted_out)
    assert classes(rows, family) == {
        "pod → pod, same node": ("local", "local"),
        "pod → pod": pods,
        "pod → node": nodes,
        "node → pod": nodes,
        "node → node": nodes,
        "pod → world": (PLAINTEXT, PLAINTEXT),
        "world → pod": (world_in, world_in),
    }


def test_only_families_with_pods_and_no_ingress() -> None:
    rows = matrix(config(pod_cidrs=(p("10.0.0.0/8"),), node_cidrs=(), ingress=False))
    assert {row.family for row in rows} == {4}
    assert classes(rows, 4)["world → pod"] == (PLAINTEXT, PLAINTEXT)


def test_remarks() -> None:
    rows = {r.traffic: r.remark for r in matrix(config(node_encryption=True)) if r.family == 4}
    assert "etcd" in rows["node → node"] and "kubelet" in rows["node → pod"]
    rows = {r.traffic: r.remark for r in matrix(config()) if r.family == 4}
    assert not rows["node → node"]
