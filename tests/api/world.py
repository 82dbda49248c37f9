"""Owners, their webhooks, and a client that speaks JSON."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import Client
from django.utils import timezone

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, WebhookTarget
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request, Timing
from tests.connections import run_together
from tests.library.models import Author

URL = "https://example.com/hook"
#: What makes a new target.
NEW = {"target_url": URL, "events": ["project.update"]}


@dataclass(frozen=True)
class Answer:
    """What the API answered: *data* is the parsed body, ``None`` if that is empty."""

    status: int
    data: Any
    headers: dict[str, str] = field(compare=False)

    @property
    def mistakes(self) -> dict[str, list[str]]:
        """What is wrong with the request, by field."""
        assert (self.status, self.data["code"]) == (400, "invalid"), self
        return dict(self.data["errors"])

    @property
    def wrong_fields(self) -> list[str]:
        """The fields of the request that are wrong, or have something wrong inside."""
        return list(dict.fromkeys(name.partition(".")[0] for name in self.mistakes))


class Api:
    """The API, used by one user."""

    def __init__(self, user: User | None = None, prefix: str = "/api/") -> None:
        self.client, self.prefix = Client(), prefix
        if user is not None:
            self.client.force_login(user)

    def call(self, method: str, path: str, data: object = None, **headers: str) -> Answer:
        """Make a request below the prefix, or to a whole address."""
        url = path if path.startswith(("http", "/")) else self.prefix + path
        body = b"" if data is None else json.dumps(data).encode()
        response = self.client.generic(method, url, body, content_type="application/json", headers=headers)
        assert not response.content or response["content-type"] == "application/json"
        return Answer(response.status_code, json.loads(response.content or b"null"), dict(response.headers))

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, data: object = None, **headers: str) -> Answer:
        return self.call("POST", path, data, **headers)

    def put(self, path: str, data: object) -> Answer:
        return self.call("PUT", path, data)

    def patch(self, path: str, data: object) -> Answer:
        return self.call("PATCH", path, data)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)

    def ids(self, path: str) -> list[str]:
        """The ids on the first page of a list."""
        answer = self.get(path)
        assert answer.status == 200, answer
        return [row["id"] for row in answer.data["results"]]


def make_owner(name: str = "ann") -> User:
    return User.objects.create(username=name)


def make_publisher(name: str = "ann") -> User:
    """An owner who may fire events."""
    user = make_owner(name)
    user.user_permissions.add(Permission.objects.get(codename="add_event", content_type__app_label="djwebhooks"))
    return user


def make_target(owner: User | None, *events: str, url: str = URL, **fields: Any) -> WebhookTarget:
    return WebhookTarget.objects.register(url, events or ["*"], owner=owner, **fields)


def answer_briefly(request: Request) -> Reply:
    """What the targets' receivers answer."""
    timing = Timing(lookup_ms=12, first_byte_ms=0)
    return Reply(request.key, status=500, headers={"x-kind": "test"}, body=b"no, thanks", address="192.0.2.1", timing=timing)


@dataclass(frozen=True)
class Webhooks:
    """One of everything that an owner can have."""

    target: WebhookTarget
    hidden: WebhookTarget
    event: Event
    published: Event
    delivery: Delivery
    attempt: Attempt


def make_webhooks(owner: User | None) -> Webhooks:
    """Give *owner* a target, a hidden one, an event that was tried once without success and is pending, and a published one."""
    target = make_target(owner, "project.*")
    event = fire("project.update", {"title": "x"}, owner=owner, identifier="p-42")
    fire("project.done", {"title": "y"}, owner=owner, urls=[URL + "/hidden"])
    deliver(answer_briefly)
    delivery = Delivery.objects.get(event=event, target=target)
    target.replay(by=owner)
    hidden = WebhookTarget.objects.get(owner=owner, is_hidden=True)
    return Webhooks(target, hidden, event, make_published(owner), delivery, delivery.attempts.get())


def make_published(owner: User | None) -> Event:
    """Have an event wait for its time that came through the API."""
    event = fire("project.done", {"title": "z"}, owner=owner, deliver_at=timezone.now() + timedelta(days=1))
    Event.objects.filter(pk=event.pk).update(is_published=True)
    return event


def own_organisation(request: HttpRequest, org: str) -> User | None:
    """For DJWEBHOOKS_REQUEST_OWNER: everybody may act for everybody, save for two special ones."""
    assert request.user.is_authenticated
    if org == "closed":
        raise PermissionDenied
    return None if org == "nobody" else User.objects.get(username=org)


def own_name(request: HttpRequest, **kwargs: str) -> str:
    """For DJWEBHOOKS_REQUEST_OWNER: something that cannot own."""
    return request.user.get_username()


def own_author(request: HttpRequest, org: str) -> Author:
    """For DJWEBHOOKS_REQUEST_OWNER, where targets belong to authors."""
    return Author.objects.get(name=org)


def run_at_once(user: User, bodies: list[tuple[str, object]], **headers: str) -> list[Any]:
    """POST all of *bodies* at the same moment and return the answers."""
    cookies = Api(user).client.cookies

    def post(path: str, body: object) -> Any:
        api = Api()
        api.client.cookies.update(cookies)
        return api.post(path, body, **headers)

    return run_together(*[partial(post, *pair) for pair in bodies])
