"""The table of fields in `docs/vectors.md`, written from the schema.

    python -P -m vectors.fields      prints it
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import click

from vectors.model import FOLDER, Json

BEGIN = "<!-- fields: python -P -m vectors.fields -->"
END = "<!-- end of fields -->"
_FORMS = {"hex": "hex", "key": "32 bytes", "decimal": "decimal string", "uint32": "number"}
_TYPES = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list"}


def table() -> str:
    """All kinds with their inputs and what is expected, as Markdown between two marks."""
    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    lines = [BEGIN, "", "| kind | | field | form | meaning |", "|---|---|---|---|---|"]
    for name, kind in schema["$defs"]["kinds"].items():
        lines.append(f"| **`{name}`** | | | | {kind['description']} |")
        for way in ("inputs", "expected"):
            lines += _rows(way, kind["properties"][way])
    return "\n".join([*lines, "", END])


def _rows(way: str, fields: Json) -> Iterator[str]:
    for name, field in fields["properties"].items():
        optional = "" if name in fields["required"] else ", optional"
        meaning = field["description"].replace("|", "\\|")
        yield f"| | {way} | `{name}` | {_form(field)}{optional} | {meaning} |"


def _form(field: Json) -> str:
    """`32 bytes`, `list of decimal string`, `hex or null`."""
    if "$ref" in field:
        name: str = field["$ref"].rpartition("/")[2]
        return _FORMS.get(name, name)
    if "anyOf" in field:
        return " or ".join(_form(choice) for choice in field["anyOf"])
    if "enum" in field:
        return "text"
    kind = field["type"]
    if isinstance(kind, list):
        return " or ".join(_TYPES.get(name, str(name)) for name in kind)
    if kind == "array":
        inner = field["items"]
        return "list of lists" if inner.get("type") == "array" else f"list of {_form(inner)}"
    if digits := re.search(r"\{(\d+)\}\$$", field.get("pattern", "")):
        return f"{int(digits[1]) // 2} bytes"
    return _TYPES.get(kind, str(kind))


@click.command()
def main() -> None:
    """Print the table."""
    click.echo(table())


if __name__ == "__main__":
    main()
