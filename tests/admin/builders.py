"""What tests of the admin make, press and read."""

import re
import uuid
from collections.abc import Iterable

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from djwebhooks.events import fire
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.testing import deliver

URL = "https://receiver.example.com/hooks"
LISTS = ("webhooktarget", "event", "delivery")


def make_owner(name: str = "ann") -> User:
    return User.objects.create_user(name)


def make_target(url: str = URL, *, owner: User | None = None, **fields: object) -> WebhookTarget:
    return WebhookTarget.objects.register(url, ["project.*"], owner=owner or make_owner(), **fields)


def make_staff(*permissions: str) -> Client:
    """A client of a staff member with these permissions and no others."""
    user = User.objects.create_user(f"staff {uuid.uuid4()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="djwebhooks", codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def send(target: WebhookTarget, answer: object = 200, payload: object = None) -> Delivery:
    """Fire an event and try once to deliver it to *target*."""
    event = fire("project.update", payload or {"title": "x"}, owner=target.owner)
    deliver(answer)
    return Delivery.objects.get(event=event, target=target)


def page_of(row: object, page: str = "change") -> str:
    return reverse(f"admin:djwebhooks_{row._meta.model_name}_{page}", args=[row.pk])


def list_of(model: str) -> str:
    return reverse(f"admin:djwebhooks_{model}_changelist")


def act(client: Client, row: object, name: str) -> HttpResponse:
    """Press a button of a row's page."""
    url = reverse(f"admin:djwebhooks_{row._meta.model_name}_act", args=[row.pk, name])
    return client.post(url, follow=True)


def act_on_list(client: Client, rows: Iterable[object], name: str) -> HttpResponse:
    """Run an action of the list."""
    rows = list(rows)
    data = {"action": name, "_selected_action": [row.pk for row in rows]}
    return client.post(list_of(rows[0]._meta.model_name), data, follow=True)


def fill_form(events: Iterable[str] = ("project.*",), **fields: object) -> dict[str, object]:
    """What the form of a target posts; its events are new ones."""
    form = {"target_url": URL, "owner": "", "identifier": "", "description": "", "is_active": "on", "envelope": ""}
    form |= {"headers": "", "retry_schedule": "", "rate_limit": "", "rate_period": "second", "concurrency_limit": ""}
    events = list(events)
    form |= {"subscriptions-TOTAL_FORMS": len(events), "subscriptions-INITIAL_FORMS": 0}
    form |= {f"subscriptions-{number}-event": name for number, name in enumerate(events)}
    return form | fields


def text_of(response: HttpResponse) -> str:
    """The page without its tags, with single spaces, and entities resolved as far as tests need it."""
    text = re.sub(r"<(style|script).*?</\1>|<wbr>", "", response.content.decode(), flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", text).replace("&quot;", '"').replace("&#x27;", "'")
    return re.sub(r"\s+", " ", text)


def add_target(client: Client, **fields: object) -> HttpResponse:
    return client.post(reverse("admin:djwebhooks_webhooktarget_add"), fill_form(**fields))


def count_queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in queries]
