"""The code of the pages runs: each block in its turn, in one module for each page."""

import json
import logging
import os
import re
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import include, path
from django.utils import timezone
from prometheus_client import CollectorRegistry

from djwebhooks import catalogue, signing
from djwebhooks.conf import Settings
from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.inbox.models import Message
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.testing import Receiver, answer, deliver, fired
from djwebhooks.transports.base import Reply, Request
from tests.builders import make_deliveries, make_target, make_user
from tests.inbox.senders import store
from tests.library.models import Book
from tests.test_docs import PROJECT, TEXTS, read_blocks

pytestmark = pytest.mark.django_db


@dataclass
class Page:
    """A page whose Python runs in a module of its own, block by block; *replaced* are texts that are other ones here."""

    name: str
    module: ModuleType
    replaced: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = [block for block in read_blocks(PROJECT / self.name) if block.language == "python"]

    def run(self, *, until: str = "") -> dict[str, Any]:
        """Run the next blocks, all or up to the one that contains *until*; return the names that there are now."""
        while self.blocks:
            block = self.blocks.pop(0)
            self.run_block(block.text, block.caption)
            if until and until in block.text:
                break
        return vars(self.module)

    def run_block(self, text: str, caption: str) -> None:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        names = vars(self.module)
        if "/" in caption:
            # A file of an application, which other blocks import.
            package, _, name = caption.removesuffix(".py").partition("/")
            module = ModuleType(f"{package}.{name}")
            sys.modules |= {package: ModuleType(package), module.__name__: module}
            exec(text, vars(module))
            names.update({name: value for name, value in vars(module).items() if not name.startswith("__")})
        elif re.search("^ *return", text, re.MULTILINE) and not re.search("^ *def", text, re.MULTILINE):
            # The end of a view.
            exec(f"def view():\n{textwrap.indent(text, '    ')}\nresult = view()", names)
        else:
            exec(compile(text, self.name, "exec"), names)


Read = Callable[..., Page]


@pytest.fixture
def read(hooks: None) -> Iterator[Read]:
    """A function that reads a page; keywords are names that its code takes for granted. All of the page's code must run."""
    before, pages = set(sys.modules), list[Page]()

    def read(name: str, replaced: dict[str, str] | None = None, **names: Any) -> Page:
        # Inside an application, so that models may be defined.
        module = ModuleType(f"tests.library.page_{Path(name).stem}")
        sys.modules[module.__name__] = module
        vars(module).update({"fire": fire, "hook": hook, "WebhookTarget": WebhookTarget, "transaction": transaction, **names})
        pages.append(Page(name, module, replaced or {}))
        return pages[-1]

    yield read
    for name in set(sys.modules) - before:
        if name.startswith(("tests.library.page_", "jobs", "packages", "shop")):
            del sys.modules[name]
    assert [page.name for page in pages if page.blocks] == []


@pytest.fixture
def ada() -> User:
    return make_user()


def request_of(user: Any) -> Any:
    return SimpleNamespace(user=user)


def test_every_page_runs() -> None:
    """Each that has code in Python is read by a test, here or beside what it is about."""
    pages = [page for page in TEXTS if any(block.language == "python" for block in read_blocks(page))]
    tests = [path.read_text() for path in (PROJECT / "tests").rglob("*.py")]
    names = {
        page: (f'"{page.parent.name}" / "{page.name}"', f'DOCS / "{page.name}"', f'"{page.relative_to(PROJECT)}"')
        for page in pages
    }

    assert [page.name for page in pages if not any(name in test for test in tests for name in names[page])] == []


def list_faults(settings: LazySettings, names: dict[str, Any]) -> list[str]:
    """What the checks say of the settings among *names*, all of which must be known."""
    given = {name: value for name, value in names.items() if name.startswith("DJWEBHOOKS_")}
    assert given
    assert set(given) <= set(Settings().names())
    for name, value in given.items():
        setattr(settings, name, value)
    return [message.msg for message in run_checks(tags=["djwebhooks"]) if message.is_serious()]


@pytest.mark.django_db(transaction=True)
def test_one_can_send_from_ones_own_process(read: Read, settings: LazySettings, receiver: Receiver, ada: User) -> None:
    """At once, in a thread, in one pass, by the command, and straight to URLs."""
    replaced = {"https://example.com/hook": receiver.url, "https://example.com": receiver.url}
    forked: list[Any] = []
    page = read("docs/how-to/inside.rst", replaced | {"Worker().start()": "forked.append(Worker())"}, user=ada, forked=forked)

    settings.DJWEBHOOKS_ENGINE = page.run(until="DJWEBHOOKS_ENGINE")["DJWEBHOOKS_ENGINE"]
    names = page.run(until="results_of")
    delivery = Delivery.objects.get()
    assert names["result"] == {
        "job": 17,
        "state": "done",
        "attempt": 1,
        "hash": str(delivery.event.uid),
        "response": "",
        "status_code": 200,
        "url": receiver.url,
    }

    settings.DJWEBHOOKS_ENGINE = page.run(until="DJWEBHOOKS_ENGINE")["DJWEBHOOKS_ENGINE"]
    page.run(until="worker.start()")
    page.run(until="post_fork")["post_fork"](None, None)
    assert forked
    work = page.run(until="work(burst=True)")
    assert Attempt.objects.count() == 3
    assert work["count"] >= 1

    page.run(until="urls=")
    uid = WebhookTarget.objects.get(target_url=f"{receiver.url}/one").uid
    call_command("webhooks", "work", "--burst", "--target", str(uid), stdout=StringIO())
    assert sorted(json.loads(request.body)["data"]["job"] for request in receiver.requests[3:]) == [20, 21]
    call_command("webhooks", "work", "--burst", stdout=StringIO())
    assert sorted(json.loads(request.body)["data"]["job"] for request in receiver.requests[5:]) == [21, 22]

    page.run()
    assert not WebhookTarget.objects.get(target_url=receiver.url).subscriptions.exists()


def test_hooks(read: Read, ada: User, caplog: pytest.LogCaptureFixture) -> None:
    """They are fired with what they are given, and build what the page says."""
    make_target(ada)
    project, order = Book.objects.create(title="x"), Book.objects.create(title="order")
    names = {"project": project, "user": ada, "shop": ada, "order": order, "payload": {"id": 1}, "request": request_of(ada)}
    tomorrow = timezone.now() + timedelta(days=1)
    page = read(
        "docs/how-to/hooks.rst",
        {"report_ready.delay(report, owner=user)": ""},  # Needs a Redis; the tests of hooks have it.
        models=SimpleNamespace(Model=object),
        in_a_week=tomorrow,
        midnight=tomorrow,
        **names,
    )
    page.run(until="identifier=")
    [event] = fired()
    assert (event.name, event.identifier, event.owner_id) == ("project.update", "p-42", ada.pk)
    assert [json.loads(request.body)["data"] for request in deliver()] == [{"id": str(project.pk), "title": "x"}]

    page.run()

    events = {event.name: event for event in fired()}
    assert events["order.paid"].idempotency_key == f"order-{order.pk}"
    assert events["trial.ends"].deliver_at == events["offer.open"].expires_at == tomorrow


def test_targets(read: Read, settings: LazySettings, ada: User) -> None:
    """They are made, changed and sent to as the page says."""
    yesterday = timezone.now() - timedelta(days=1)
    page = read("docs/how-to/targets.rst", user=ada, yesterday=yesterday, at="midnight", link="https://example.com/1")

    names = page.run()

    target = WebhookTarget.objects.get(is_hidden=False)
    assert (target.events, target.rate_limit, target.state) == (["project.*"], 5, "healthy")
    assert [str(pattern.pattern) for pattern in names["urlpatterns"]] == ["api/webhooks/"]
    assert WebhookTarget.objects.get(is_hidden=True).target_url == "https://example.com/done"
    assert {request.url for request in deliver()} == {"https://example.com/hook", "https://example.com/done"}


@pytest.mark.django_db(transaction=True)
def test_rest_hooks(read: Read, ada: User, live_server: Any) -> None:
    """A program looks at what will come, subscribes and unsubscribes, all of it over HTTP."""
    ada.set_password("secret")
    ada.save()
    WebhookTarget.objects.register("https://example.com/else", ["project.*"], owner=ada)
    fire("project.update", {"title": "x"}, owner=ada)
    deliver()

    names = read("docs/how-to/rest-hooks.rst", {"https://example.org/api/webhooks/": f"{live_server.url}/api/"}).run()

    assert [sample["data"] for sample in names["samples"]] == [{"title": "x"}]
    assert names["hook"]["secret"].startswith("whsec_")
    assert WebhookTarget.objects.get().target_url == "https://example.com/else"


def test_owners(read: Read, ada: User) -> None:
    """The function finds the shop of the address among the user's own."""
    shops = {"mine": "a shop"}
    user = SimpleNamespace(shops=SimpleNamespace(filter=lambda slug: SimpleNamespace(first=lambda: shops.get(slug))))
    names = read("docs/how-to/owners.rst", path=path, include=include).run()

    assert names["shop_of_request"](request_of(user), shop="mine") == "a shop"
    with pytest.raises(PermissionDenied):
        names["shop_of_request"](request_of(user), shop="theirs")


def test_models(read: Read, ada: User) -> None:
    """What bulk operations leave out is said by hand, in one transaction with them."""
    updates: list[Any] = []
    books = SimpleNamespace(filter=lambda **query: SimpleNamespace(update=lambda **values: updates.append((query, values))))
    publisher = SimpleNamespace(pk=7, user=ada)
    names = read("docs/how-to/models.rst", Book=SimpleNamespace(objects=books), publisher=publisher).run()

    assert updates == [({"publisher": publisher}, {"currency": "EUR"})]
    assert [(event.name, event.payload) for event in fired()] == [("publisher.repriced", '{"id":7}')]
    assert set(names["DJWEBHOOKS_MODEL_EVENTS"]["book.repriced"]) <= {"on", "changed", "payload", "owner", "identifier"}


def test_the_catalogue(
    read: Read,
    settings: LazySettings,
    ada: User,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its settings are good, and a payload that does not fit is told as the page shows."""
    monkeypatch.setattr(catalogue, "_registered", {})
    page = read("docs/how-to/catalogue.rst")
    assert list_faults(settings, page.run(until="DJWEBHOOKS_EVENTS")) == []
    names = page.run()
    names["project_updated"](Book.objects.create(title="x"), owner=ada)
    caplog.clear()
    fire("project.update", {"id": 1, "title": 5}, owner=ada)
    [shown] = [block.text.strip() for block in read_blocks(PROJECT / page.name) if block.language == "text"]

    assert [record.getMessage() for record in caplog.records] == [shown]


def test_filters(read: Read, ada: User) -> None:
    """The target gets large orders that are paid, and every refund."""
    read("docs/how-to/filters.rst", shop=ada).run()
    for total in (99.5, 100):
        fire("order.changed", {"status": "paid", "total": total}, owner=ada)
    fire("order.changed", {"status": "new", "total": 100}, owner=ada)
    fire("refund.made", {}, owner=ada)

    assert [json.loads(request.body)["data"] for request in deliver()] == [{"status": "paid", "total": 100}, {}]


def test_coalescing(read: Read, ada: User) -> None:
    """Of two changes of a document, and of a stock, the newer one waits to be sent."""
    make_target(ada)
    names = read("docs/how-to/coalescing.rst", shop=ada).run()
    document = Book(title="Draft")
    for title in ("Draft", "Final"):
        document.title = title
        names["document_changed"](document, ada)

    dispatch("default")

    waiting = Delivery.objects.pending().order_by("event__name").values_list("event__name", "coalesced_count")
    assert list(waiting) == [("document.changed", 1), ("stock.changed", 1)]


def test_ordering(read: Read, ada: User) -> None:
    """The target is ordered, and the event has its key."""
    order = Book.objects.create(title="x")
    url = "https://example.com/hook"
    names = {
        "url": url,
        "shop": ada,
        "payload": {},
        "order": order,
        "Order": Book,
        "pk": order.pk,
        "order_paid": lambda order: None,
    }
    read("docs/how-to/ordering.rst", **names).run()

    assert WebhookTarget.objects.get().is_ordered
    assert fired()[0].ordering_key == f"order-{order.pk}"


def test_health(read: Read, ada: User) -> None:
    """It is paused in the end, and has its limits."""
    names = read("docs/how-to/health.rst", target=make_target(ada)).run()

    assert names["target"].state == "paused"
    assert (names["target"].rate_limit, names["target"].rate_period, names["target"].concurrency_limit) == (100, "minute", 2)


def test_replaying(read: Read, ada: User) -> None:
    """One delivery, some of a target, all of an owner; and a replay is cancelled."""
    target = make_target(ada)
    delivery, *_ = make_deliveries(target, 3, "failed", finished_at=timezone.now())
    Event.objects.update(name="order.paid")
    now = timezone.now()
    times = {"yesterday": now - timedelta(days=1), "noon": now - timedelta(hours=2), "one_o_clock": now - timedelta(hours=1)}
    page = read("docs/how-to/replay.rst", delivery=delivery, target=target, user=ada, request=request_of(ada), **times)

    page.run(until="delivery.retry")
    assert Delivery.objects.get(pk=delivery.pk).status == "pending"
    replay = page.run()["replay"]

    assert (replay.rate, replay.count > 0) == (10, True)
    assert Replay.objects.get(pk=replay.pk).cancelled_by == ada.get_username()


def test_authentication(read: Read, ada: User) -> None:
    """The first is taken as it is; keys and certificates of the others are left out on the page."""
    target = make_target(ada)
    page = read("docs/how-to/authentication.rst", target=target)
    page.run(until="target.full_clean()")
    assert WebhookTarget.objects.get().authentication_summary == {"type": "basic", "username": "ada"}

    page.run()
    assert target.headers == {"x-api-key": "…"}


def test_erasing(read: Read, ada: User) -> None:
    """The customer's events, the shop's, and what messages said."""
    customer, shop, owner = make_user("customer"), make_user("shop"), make_user("owner")
    event = fire("order.paid", {"name": "Ada"}, owner=ada, subjects=[customer])
    store(source="stripe", body=b"cus_4QFGhjWa")
    stripe = store(message_id="evt_1", body=b"{}")
    people = {"customer": customer, "Customer": User, "shop": shop, "Shop": User, "owner": owner}
    read("docs/how-to/erasure.rst", order=Book.objects.create(title="x"), **people).run()

    event.refresh_from_db()
    assert (event.payload, event.erased_at is None) == ("", False)
    assert not User.objects.filter(username="owner").exists()
    assert Message.objects.filter(erased_at__isnull=True).count() == 0
    stripe.refresh_from_db()
    assert bytes(stripe.body) == b""


def test_rotating(read: Read, ada: User) -> None:
    """A receiver that has the new key is found to have it, and the old one ends."""
    target = make_target(ada)
    page = read("docs/how-to/rotating.rst", target=target)
    page.run(until="rotate_secret")
    page.run(until="check_keys")

    def verify(request: Request) -> Reply:
        try:
            signing.verify(request.body, request.headers, target.secret)
        except InvalidSignature:
            return Reply(request.key, status=401)
        return Reply(request.key, status=200)

    deliver(verify)
    [shown] = [block.text for block in read_blocks(PROJECT / page.name) if block.language == "pycon"]
    target = WebhookTarget.objects.get()
    for asked, answered in re.findall(r"^>>> (\S+).*\n(\w+)$", shown, re.MULTILINE):
        assert str(eval(asked, {"target": target})) == answered

    page.run()
    assert len(WebhookTarget.objects.get().keys) == 1


def test_receiving(read: Read, settings: LazySettings, receiver: Receiver) -> None:
    """With the library of the standard, by hand, with ``verify``, and with a public key that was fetched."""
    secret, pair = signing.new_secret(), signing.new_key_pair()
    settings.WEBHOOK_SECRET = secret
    body, now = b"{}", int(timezone.now().timestamp())
    names = {"logger": logging.getLogger(__name__), "old_key": secret, "new_key": signing.new_secret(), "secret": secret}

    def sign(key: str) -> Any:
        headers = {"webhook-id": "m", "webhook-timestamp": str(now), "webhook-signature": signing.sign(key, "m", now, body)}
        return RequestFactory().post("/", body, content_type="application/json", headers=headers)

    keys = json.dumps({"keys": [signing.as_jwk(signing.public_key(pair))]}).encode()
    page = read("docs/how-to/receiving.rst", request=sign(secret), HttpResponse=HttpResponse, **names)
    assert page.run(until="WebhookVerificationError")["result"] is None
    assert page.run(until="def receive")["receive"](sign(secret)).status_code == 204
    with pytest.raises(InvalidSignature):
        vars(page.module)["receive"](sign(names["new_key"]))
    page.run(until="Still signed")
    receiver.answers = [answer(200, keys)]
    vars(page.module).update(KEYS_URL=receiver.url, request=sign(pair))
    page.run()


def test_the_inbox(read: Read, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are good, and what failed is replayed."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "a secret of the tests")
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", signing.new_secret())
    monkeypatch.setattr("djwebhooks.inbox.handlers._receivers", [])
    sys.modules |= {"packages": ModuleType("packages"), "packages.models": SimpleNamespace(Package=None)}  # type: ignore[dict-item]
    failed = store(source="github", event="push", status="failed")
    page = read("docs/how-to/inbox.rst", INSTALLED_APPS=[], urlpatterns=[])

    assert list_faults(settings, page.run(until="DJWEBHOOKS_INBOX")) == []
    settings.RQ_QUEUES = page.run(until="replay()")["RQ_QUEUES"]
    assert Message.objects.get(pk=failed.pk).status == "new"
    monkeypatch.setattr("djwebhooks.inbox.handlers._receivers", [])
    assert list_faults(settings, page.run()) == []


def test_the_settings_of_the_pages_are_good(read: Read, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for development, for libcurl, and those of the reference; their catalogue is not that of other pages' hooks."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "a secret of the tests")
    monkeypatch.setattr("djwebhooks.inbox.handlers._receivers", [])

    for page in (
        read("docs/how-to/development.rst"),
        read("docs/how-to/curl.rst"),
        read("docs/how-to/tasks.rst", INSTALLED_APPS=[]),
        read("docs/reference/settings.rst", {"shop.webhooks.SlackSender": "djwebhooks.senders.FormSender"}, os=os),
    ):
        assert list_faults(settings, page.run()) == []


def test_production(read: Read, tmp_path: Path) -> None:
    """The worker is started beside the application, and ended here; the database is one that Django knows."""
    workers: list[Any] = []
    page = read("docs/how-to/production.rst", {"Worker().start()": "workers.append(Worker())"}, workers=workers,
                get_wsgi_application=lambda: None, BASE_DIR=tmp_path)  # fmt: skip

    assert page.run()["DATABASES"]["default"]["ENGINE"] == "django.db.backends.sqlite3"
    assert workers


def test_metrics(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is registered as the application starts, a worker counts beside its port, and several processes are one."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    registry, called = CollectorRegistry(), list[tuple[Any, ...]]()
    page = read("docs/how-to/metrics.rst")

    page.run(until="ShopConfig")
    sys.modules["shop.apps"].REGISTRY = registry  # type: ignore[attr-defined]
    page.module.ShopConfig.ready(None)
    assert registry.get_sample_value("djwebhooks_up", {"database": "default"}) == 1

    page.run(until="start_http_server")
    command = sys.modules["shop.management/commands/work"]
    for name in ("count_outcomes", "start_http_server", "call_command"):
        setattr(command, name, lambda *arguments, **_: called.append(arguments))
    page.module.Command().handle()
    assert called == [(), (9100,), ("webhooks", "work")]

    assert b'djwebhooks_up{database="default"} 1.0' in page.run()["metrics"](None).content


def test_the_reference(read: Read, settings: LazySettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed is asked as it is shown, and the source is possible."""
    receiver.answers = [answer(200, b"{}")]
    monkeypatch.setenv("SHOPIFY_SECRET", "a secret of the tests")
    monkeypatch.setattr("djwebhooks.inbox.handlers._receivers", [])
    names = {"TARGET": uuid.uuid4(), "SECRET": signing.new_secret(), "last_sequence": 17, "path": path, "include": include}
    # The pages with the description need apps that are not installed here; they have tests of their own.
    replaced = {"https://example.com": receiver.url, "djwebhooks.api.docs_urls": "djwebhooks.api.urls"}
    found = read("docs/reference/api.rst", replaced, **names).run()

    assert found["page"] == {}
    [asked] = receiver.requests
    assert asked.path == f"/hook/api/webhooks/feed/?target={names['TARGET']}&after=17&wait=20"
    signing.verify(asked.path.partition("?")[2].encode(), asked.headers, names["SECRET"])
    assert list_faults(settings, read("docs/reference/inbox.rst", os=os).run()) == []


def test_the_readme(read: Read, ada: User) -> None:
    """Its hook is fired."""
    read("README.rst", INSTALLED_APPS=[], project=Book.objects.create(title="x"), request=request_of(ada)).run()

    assert [event.name for event in fired()] == ["project.update"]
