"""What `wgpy strict` prints for people: nothing is cut at 80 columns, however long names are."""

from __future__ import annotations

from typing import ClassVar

import pytest

from strict.settings import TableConfig
from strict.show import show_matrix, show_nodes
from strict.wire import config_to_wire
from wgpy.protocol.endpoint import Prefix

NAME = "ip-10-0-133-207.eu-central-1.compute.internal.of-a-cluster-with-a-very-long-name"
KEY = "oP7CjJuQOOeOTJzLmmkWe0Xm5tWdGhqIZ6UmzXJmQzI="
NODE = {
    "name": NAME,
    "local": True,
    "opted_out": True,
    "public_key": KEY,
    "addresses": ["10.0.133.207", "2001:db8:1234:5678:9abc:def0:1234:5678"],
    "pod_cidrs": ["10.244.133.0/24", "fd00:1234:5678:9abc:def0:1234:5678:0/112"],
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_node_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_nodes([NODE, NODE | {"name": "b", "local": False, "public_key": None}], ["beware"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [NAME] in lines and ["key", KEY] in lines
    for text in (*NODE["addresses"], *NODE["pod_cidrs"]):
        assert text in [word for line in lines for word in line]
    assert ["remarks", "this", "node"] in lines and ["OptedOut"] in lines
    assert ["key", "–"] in lines and ["beware"] in lines


def test_the_matrix_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    cidrs = Prefix.parse("10.0.0.0/8"), Prefix.parse("fd00::/16")
    settings = config_to_wire(TableConfig(NAME, pod_cidrs=cidrs))

    class Client:
        hello: ClassVar = {"policy": {"config": settings}}

        def stream(self, _op: str, _key: str) -> list[dict[str, object]]:
            return [NODE]

    show_matrix(Client(), as_json=False)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
