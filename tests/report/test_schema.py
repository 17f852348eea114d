"""Documents against the schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from parity.report.render import markdown, terminal
from tests.helpers.sample_report import Document
from tests.report.conftest import MAKERS

SCHEMA: dict[str, Any] = json.loads(files("parity.report").joinpath("schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", MAKERS)
def test_the_documents_fit(documents: dict[str, Document], name: str) -> None:
    VALIDATOR.validate(documents[name])


def test_a_report_of_version_1_is_still_valid_and_shown() -> None:
    """The file was written when version 1 was new; whoever keeps such files can go on reading them."""
    document = json.loads((Path(__file__).parent / "version_1.json").read_text("utf-8"))
    VALIDATOR.validate(document)
    [program] = document["programs"]
    assert "Parity holds" in markdown.render(document)
    assert all(row["tensor"] in terminal.table(program, width=200) for row in program["findings"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["more"], 1),
        (["programs", 0, "name"], "../evil"),
        (["programs", 0, "findings", 0, "difference"], "nan"),
        (["programs", 0, "findings", 0, "off"], "nobody"),
        (["programs", 0, "findings", 0, "bound_used"], {"torch": 1}),
        (["programs", 0, "timing"], {}),
        (["programs", 0, "series", "loss", 0, "step"], 0.5),
        (["environment", "threads", "torch"], "many"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(
    documents: dict[str, Document], path: list[str | int], value: Any
) -> None:
    document = copy.deepcopy(documents["holding"])
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


def fields(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for value in schema.values():
            yield from fields(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from fields(value)


def test_every_field_is_described() -> None:
    described = list(fields(SCHEMA))
    assert len(described) > 80
    assert [name for name, field in described if not field.get("description")] == []
