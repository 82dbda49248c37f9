"""What owners are asked of a webhook, and what is wrong with what they say."""

import pytest
from django.conf import LazySettings
from django.http import QueryDict

from djwebhooks.models import WebhookTarget
from djwebhooks.portal.forms import TargetForm
from tests.api.world import make_owner, make_target

pytestmark = pytest.mark.django_db

URL = "https://example.com/hook"
CATALOGUE = {
    "project.update": {"description": "A <b>project</b> was changed."},
    "project.done": {"deprecated": "use project.update"},
    "project.secret": {"internal": True},
}


def fill(*events: str, target: WebhookTarget | None = None, **fields: str) -> TargetForm:
    data = QueryDict(mutable=True)
    data.update({"url": URL, **fields})
    data.setlist("events", list(events))
    return TargetForm(data, target=target)


def list_choices(form: TargetForm) -> list[str]:
    return [name for name, _ in form.fields["events"].choices]


@pytest.mark.parametrize(
    ("field", "form", "words"),
    [
        ("url", {"url": ""}, "required"),
        ("url", {"url": "ftp://example.com/"}, "ftp"),
        ("url", {"url": "https://10.0.0.1/"}, "10.0.0.1"),
        ("url", {"url": "https://user:password@example.com/"}, "password"),
        ("url", {"url": "https://example.com/\0"}, "Null"),
        ("url", {"url": "https://example.com/" + "a" * 3000}, "characters"),
        ("events", {"events": ""}, "required"),
        ("events", {"events": "project.*.done"}, "no pattern"),
        ("events", {"events": "a" * 300}, "255"),
        ("description", {"description": "a" * 256}, "255"),
    ],
)
def test_a_mistake_is_told_at_its_field(field: str, form: dict[str, str], words: str) -> None:
    """As the models would tell it."""
    filled = fill(form.get("events", "*"), **form)

    assert list(filled.errors) == [field]
    assert words in str(filled.errors[field])


def test_a_mistake_of_no_single_field_is_told_all_the_same() -> None:
    """Such as too many events, which the model alone counts."""
    owner, many = make_owner(), " ".join(f"e{number}" for number in range(1001))
    target = make_target(owner)
    new, changed = fill(many, url=f"{URL}/2"), fill(many, target=target)
    assert (new.is_valid(), changed.is_valid()) == (True, True)

    assert (new.add(owner), changed.change(target)) == (None, False)

    assert "1000 events" in str(new.non_field_errors())
    assert "1000 events" in str(changed.non_field_errors())
    assert WebhookTarget.objects.get().events == ["*"]


def test_any_names_will_do_without_a_catalogue() -> None:
    """Lines, spaces and commas are between them, and each is there once."""
    form = fill("project.update, project.done\r\n*  project.done")
    assert form.is_valid()

    target = form.add(make_owner())

    assert target is not None
    assert target.events == ["*", "project.done", "project.update"]


def test_events_of_the_catalogue_are_chosen(settings: LazySettings) -> None:
    """With what it says of them, as text; internal ones are not told of, and cannot be chosen either."""
    settings.DJWEBHOOKS_EVENTS = CATALOGUE

    page = str(TargetForm())

    assert list_choices(TargetForm()) == ["*", "project.done", "project.update", "webhook.target.disabled"]
    assert "A &lt;b&gt;project&lt;/b&gt; was changed." in page
    assert "Deprecated: use project.update" in page
    refused = fill("project.secret")
    assert list(refused.errors) == ["events"]
    assert "project.update" not in str(refused.errors["events"])
    assert fill("*", "project.done").is_valid()


def test_patterns_that_were_set_elsewhere_stay_chosen(settings: LazySettings) -> None:
    """Whoever saves the form with another description loses none of them."""
    target = make_target(make_owner(), "project.*", "gone.since")
    settings.DJWEBHOOKS_EVENTS = CATALOGUE

    assert list_choices(TargetForm(target=target))[-2:] == ["gone.since", "project.*"]

    form = fill("project.*", target=target, description="Ours")
    assert (form.is_valid(), form.change(target)) == (True, True)
    assert WebhookTarget.objects.get().events == ["project.*"]
