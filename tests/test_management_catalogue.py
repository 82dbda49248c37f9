"""The catalogue as it is written for people and programs."""

import json
from io import StringIO

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError
from jsonschema import Draft202012Validator

from djwebhooks import payload
from djwebhooks.catalogue import list_faults
from djwebhooks.management.catalogue import SAMPLE_TIME, SAMPLE_UID

SCHEMA = {
    "type": "object",
    "properties": {"title": {"$ref": "#/$defs/title"}},
    "$defs": {"title": {"type": "string"}},
}
CATALOGUE = {
    "paper.titled": {"description": "A paper has a title.", "schema": SCHEMA, "sample": {"title": "Über"}},
    "paper.named": {"deprecated": "Use paper.titled."},
    "audit": {"internal": True, "description": "Ours."},
}


@pytest.fixture(autouse=True)
def _catalogue(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_EVENTS = CATALOGUE


def show(*arguments: str) -> str:
    output = StringIO()
    call_command("webhooks", "events", *arguments, stdout=output)
    return output.getvalue()


def test_text_has_a_line_for_each_event() -> None:
    """Internal events are shown when that is asked for."""
    assert show() == "paper.named   deprecated: Use paper.titled.\npaper.titled  A paper has a title.\n"
    assert show("--internal").startswith("audit         Ours.; internal\n")


def test_without_a_catalogue_that_is_said(settings: LazySettings) -> None:
    """Nothing would look like a fault."""
    settings.DJWEBHOOKS_EVENTS = {}

    assert show() == "There is no catalogue: any event can be fired. See DJWEBHOOKS_EVENTS and register_event.\n"
    assert "There is no catalogue" in show("--format", "markdown")


def test_markdown_has_a_section_for_each_event() -> None:
    """What is not said is left out."""
    assert show("--format", "markdown", "--internal") == (
        "# Webhook events\n\n"
        "## `audit`\n\nFor the system's own targets only.\n\nOurs.\n\n"
        "## `paper.named`\n\n**Deprecated.** Use paper.titled.\n\n"
        "## `paper.titled`\n\nA paper has a title.\n\n"
        'Sample:\n\n```json\n{\n  "title": "Über"\n}\n```\n\n'
        f"Schema:\n\n```json\n{json.dumps(SCHEMA, indent=2)}\n```\n"
    )


@pytest.mark.parametrize("envelope", payload.ENVELOPES)
def test_openapi_tells_of_the_body_as_it_is_sent(settings: LazySettings, envelope: str) -> None:
    """The example is what would be sent, and fits the schema; another body does not."""
    settings.DJWEBHOOKS_ENVELOPE = envelope

    document = json.loads(show("--format", "openapi"))

    operation = document["webhooks"]["paper.titled"]["post"]
    [(media_type, content)] = operation["requestBody"]["content"].items()
    message = payload.Message(SAMPLE_UID, "paper.titled", SAMPLE_TIME, '{"title":"Über"}', "owner")
    assert document["openapi"] == "3.1.0"
    assert media_type == payload.content_type(envelope)
    assert content["example"] == json.loads(payload.render(envelope, message))
    validator = Draft202012Validator(content["schema"])
    assert validator.is_valid(content["example"])
    other = payload.Message(SAMPLE_UID, "paper.named", SAMPLE_TIME, '{"title":4711}', "owner")
    paths = {"flat": {"$.event", "$.title"}, payload.BINARY: {"$.title"}}.get(envelope, {"$.type", "$.data.title"})
    assert {error.json_path for error in validator.iter_errors(json.loads(payload.render(envelope, other)))} >= paths
    attributes = {told["name"]: told["example"] for told in operation["parameters"] if "name" in told}
    assert attributes == payload.envelope_headers(envelope, message)


def test_openapi_tells_of_headers_and_answers() -> None:
    """Each reference leads somewhere, and what is deprecated says so."""
    document = json.loads(show("--format", "openapi"))

    assert sorted(document["webhooks"]) == ["paper.named", "paper.titled"]
    operation = document["webhooks"]["paper.named"]["post"]
    assert operation["deprecated"] is True
    assert operation["description"] == "Use paper.titled."
    parameters = document["components"]["parameters"]
    assert [ref["$ref"].rpartition("/")[2] for ref in operation["parameters"]] == list(parameters)
    assert {"webhook-id", "webhook-signature", "webhook-timestamp"} < set(parameters)
    assert list(operation["responses"]) == ["2XX", "410", "default"]


def test_a_sample_that_cannot_be_sent_is_said(settings: LazySettings) -> None:
    """The flat envelope holds objects alone; the system check says so before."""
    settings.DJWEBHOOKS_ENVELOPE = "flat"
    settings.DJWEBHOOKS_EVENTS = {"a": {"sample": 1}}

    with pytest.raises(CommandError, match="The flat envelope needs a payload that is an object"):
        show("--format", "openapi")
    assert list_faults("a", {"sample": 1}) == ["'a' has a sample that is no object, and the flat envelope holds nothing else."]


# -- versions ----------------------------------------------------------------------------------------------------------


def show_versions(settings: LazySettings, form: str) -> str:
    settings.DJWEBHOOKS_EVENTS = {
        "paper.titled": {
            "version": "2",
            "schema": SCHEMA,
            "sample": {"title": "x"},
            "versions": {"1": {"schema": SCHEMA, "sample": {"title": "y"}, "deprecated": "Use 2."}, "0": {}},
        },
    }
    return show("--format", form)


def test_text_and_markdown_list_the_versions(settings: LazySettings) -> None:
    """The current one by its name, the others after it."""
    assert show_versions(settings, "text") == "paper.titled  version 2; also in 1 (deprecated), 0\n"

    sections = show_versions(settings, "markdown").split("\n\n")

    assert [part for part in sections if part.startswith("#")] == [
        "# Webhook events",
        "## `paper.titled`",
        "### `paper.titled` in version `1`",
        "### `paper.titled` in version `0`",
    ]
    assert "Version `2`, the current one." in sections
    assert "**Deprecated.** Use 2." in sections


def test_openapi_has_a_webhook_for_each_version(settings: LazySettings) -> None:
    """With its own schema and sample, and the header that tells it from the others."""
    webhooks = json.loads(show_versions(settings, "openapi"))["webhooks"]
    current, old = webhooks["paper.titled"]["post"], webhooks["paper.titled@1"]["post"]

    assert set(webhooks) == {"paper.titled", "paper.titled@1", "paper.titled@0"}
    assert [post["parameters"][-1]["schema"] for post in (current, old)] == [{"const": "2"}, {"const": "1"}]
    assert (old["operationId"], old["deprecated"], "deprecated" in current) == ("paper.titled@1", True, False)
    bodies = [post["requestBody"]["content"]["application/json"] for post in (current, old)]
    assert [body["example"]["data"]["title"] for body in bodies] == ["x", "y"]
    assert len({body["schema"]["properties"]["data"]["$id"] for body in bodies}) == 2
