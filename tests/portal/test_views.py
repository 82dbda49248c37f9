"""Owners manage their webhooks on pages of their own."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from djwebhooks.erasure import erase_events
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.portal import views
from djwebhooks.portal.forms import SAME_URL
from djwebhooks.portal.views import PAGE
from djwebhooks.senders import Sender
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.api.world import Api, make_owner, make_target
from tests.connections import plain
from tests.portal.visitors import press, read, url_of, visit

pytestmark = pytest.mark.django_db

URL = "https://example.com/hook"
SCRIPT = "<script>alert(1)</script>"
FORM = {"url": URL, "events": "project.update"}


@pytest.fixture
def owner() -> User:
    return make_owner()


@pytest.fixture
def client(owner: User) -> Client:
    return visit(owner)


def answer_with_markup(request: Request) -> Reply:
    return Reply(request.key, status=500, headers={"x-said": SCRIPT}, body=SCRIPT.encode(), detail=SCRIPT)


def send(target: WebhookTarget, answer: object = 200) -> Delivery:
    """Fire an event, and try once to deliver it."""
    event = fire("project.update", {"said": SCRIPT}, owner=target.owner)
    deliver(answer)
    return Delivery.objects.get(event=event, target=target)


# -- targets -----------------------------------------------------------------------------------------------------------


def test_a_webhook_is_added_and_its_secret_shown_once(client: Client, owner: User) -> None:
    """It is in the answer to the form, which no cache keeps, and neither in the session nor on any other page."""
    answer = client.post(url_of("targets"), {**FORM, "events": "project.update, invoice.*", "description": "Ours"})
    [target] = WebhookTarget.objects.all()

    assert answer.status_code == 201
    assert "no-store" in answer["cache-control"]
    assert answer.content.decode().count(target.secret) == 1
    assert (target.owner, target.events, target.description) == (owner, ["invoice.*", "project.update"], "Ours")
    for page in (url_of("targets"), *(url_of(name, target) for name in ("target", "edit", "delete"))):
        assert target.secret not in client.get(page).content.decode()
    assert target.secret not in str(dict(client.session)) + str(client.cookies)


def test_a_webhook_that_is_there_keeps_its_secret(client: Client) -> None:
    """Whoever adds it again is told so at its URL; neither its events nor anything else changes."""
    client.post(url_of("targets"), FORM)

    again = client.post(url_of("targets"), {**FORM, "events": "other"})

    [target] = WebhookTarget.objects.all()
    assert again.context["form"].errors == {"url": [SAME_URL]}
    assert target.events == ["project.update"]
    assert target.secret not in again.content.decode()


@pytest.mark.parametrize("is_at_once", [False, True])
def test_a_double_click_adds_one_webhook_and_shows_its_secret(client: Client, owner: User, is_at_once: bool) -> None:
    """The browser shows the second answer, which is the same as the first one."""
    form, other = open_form(client, url_of("targets")) | {"url": URL, "events": "a"}, visit(owner)
    answers: list[HttpResponse] = []
    waiting = [other] if is_at_once else []

    def click_twice(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if '"djw_target"."digest" IN' in plain(sql) and waiting:
            answers.append(waiting.pop().post(url_of("targets"), form))
        return found

    with connection.execute_wrapper(click_twice):
        answers.append(client.post(url_of("targets"), form))
    if not is_at_once:
        answers.append(client.post(url_of("targets"), form))

    [target] = WebhookTarget.objects.all()
    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.content.decode().count(target.secret) for answer in answers] == [1, 1]


def test_who_goes_back_to_the_form_can_add_another_webhook(client: Client, owner: User) -> None:
    """What is filled in otherwise is another form; and a secret that was rotated is shown to nobody who has an old one."""
    form = open_form(client, url_of("targets")) | {"url": URL, "events": "a"}
    client.post(url_of("targets"), form)

    assert client.post(url_of("targets"), form | {"url": URL + "/2"}).status_code == 201
    WebhookTarget.objects.get(target_url=URL).rotate_secret()
    assert client.post(url_of("targets"), form).context["form"].errors == {"url": [SAME_URL]}
    assert WebhookTarget.objects.count() == 2


def test_no_more_webhooks_than_allowed_are_added(client: Client, settings: LazySettings) -> None:
    """The form says how many there may be."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    client.post(url_of("targets"), FORM)

    answer = client.post(url_of("targets"), {**FORM, "url": URL + "/2"})

    assert "You have 1 webhooks, which is as many as you may" in read(answer)
    assert '<form class="panel" method="post" action="#add" id="add"' in answer.content.decode()  # where the browser scrolls to
    assert WebhookTarget.objects.count() == 1


def test_the_list_says_how_each_fares(client: Client, owner: User) -> None:
    """Its state and why, its events, and when an event last got there and last did not."""
    target = make_target(owner, "project.*", description="Ours")
    assert "No success lately" in read(client.get(url_of("targets")))
    succeeded, failed = send(target), send(target, 410)

    page = client.get(url_of("targets"))

    [(listed, _)] = page.context["listed"]
    assert (listed.succeeded_at, listed.failed_at) == (succeeded.finished_at, failed.finished_at)
    for words in (target.target_url, "Ours", "project.*", "disabled", "receiver answered 410 Gone. Events wait", "last failure"):
        assert words in read(page)


def test_many_webhooks_have_pages(client: Client, owner: User) -> None:
    """The newest come first, and a page that there is not is the last."""
    WebhookTarget.objects.bulk_create([
        WebhookTarget(owner=owner, target_url=f"{URL}/{number}", events=["a"]) for number in range(PAGE + 1)
    ])  # fmt: skip

    first, second = client.get(url_of("targets")), client.get(url_of("targets") + "?page=99")

    assert [len(page.context["listed"]) for page in (first, second)] == [PAGE, 1]
    assert "Page 1 of 2" in read(first)
    assert second.context["listed"][0][0].target_url == f"{URL}/0"


def test_a_webhook_is_changed(client: Client, owner: User) -> None:
    """The form has what is so, and changes what it has, and nothing else."""
    target = make_target(owner, "project.*", identifier="p-42", filters={"project.*": {"status": ["paid"]}})
    shown = client.get(url_of("edit", target))
    assert [f'value="{URL}"' in shown.content.decode(), ">\nproject.*</textarea>" in shown.content.decode()] == [True, True]

    page = press(client, "edit", target, url="https://EXAMPLE.com:443/other", events="invoice.*\n*", description="Mine")

    changed = WebhookTarget.objects.get()
    assert page.redirect_chain == [(url_of("target", target), 302)]
    assert "Saved." in read(page)
    assert (changed.target_url, changed.events, changed.description) == ("https://example.com/other", ["*", "invoice.*"], "Mine")
    assert (changed.identifier, changed.filters, changed.secret) == ("p-42", None, target.secret)


def test_a_change_that_cannot_be_changes_nothing(client: Client, owner: User) -> None:
    """The form says at which field it is, and the page is still that of the webhook as it is."""
    target = make_target(owner)
    make_target(owner, url=URL + "/2")

    page = client.post(url_of("edit", target), {"url": URL + "/2", "events": "*"})

    assert page.context["form"].errors == {"url": [SAME_URL]}
    assert page.context["target"].target_url == WebhookTarget.objects.get(pk=target.pk).target_url == URL


def open_form(client: Client, page: str) -> dict[str, list[str]]:
    """What a browser would post if nothing was changed on that page."""
    return Form.read(client.get(page).content.decode())


class Form(HTMLParser):
    """Reads the inputs of a page's main form."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self.text = ""

    @classmethod
    def read(cls, page: str) -> dict[str, list[str]]:
        parser = cls()
        parser.feed(page)
        return parser.fields

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        name = told.get("name") or ""
        self.text = name if tag == "textarea" else ""
        if tag == "input" and (told.get("type") != "checkbox" or "checked" in told) and name != "csrfmiddlewaretoken":
            self.fields.setdefault(name, []).append(told.get("value") or "")

    def handle_data(self, data: str) -> None:
        if self.text:
            self.fields[self.text] = [data.removeprefix("\n")]
            self.text = ""


@pytest.mark.parametrize("has_catalogue", [False, True])
def test_what_others_change_meanwhile_stays(client: Client, owner: User, settings: LazySettings, has_catalogue: bool) -> None:
    """Only what the person changes is written: a hook made or ended since the page was opened is as it was wanted there."""
    names = ["invoice.paid", "project.done", "project.update", "user.left"]
    settings.DJWEBHOOKS_EVENTS = {name: {} for name in names if has_catalogue}
    target = make_target(owner, "invoice.paid", "project.done", description="Ours")
    form = open_form(client, url_of("edit", target))
    api = Api(owner)
    assert api.post("hooks/", {"event": "user.left", "target_url": URL}).status == 200
    assert api.delete(f"hooks/{target.uid}-invoice.paid/").status == 204
    assert api.patch(f"targets/{target.uid}/", {"description": "Theirs"}).status == 200

    wanted = ["invoice.paid", "project.update"]
    page = press(client, "edit", target, **form | {"events": wanted if has_catalogue else "\n".join(wanted)})

    assert "Saved." in read(page)
    changed = WebhookTarget.objects.get()
    assert (changed.events, changed.description) == (["project.update", "user.left"], "Theirs")


def test_a_description_of_several_lines_stays(client: Client, owner: User) -> None:
    """Programs may have written it. Browsers make one line of it in its field, and other ends of lines where it is hidden."""
    target = make_target(owner, description="Ours\nor\rtheirs")
    form = open_form(client, url_of("edit", target))
    sent = {"description": ["Oursortheirs"], "initial-description": ["Ours\r\nor\r\ntheirs"], "events": ["user.left"]}

    assert "Saved." in read(press(client, "edit", target, **form | sent))

    changed = WebhookTarget.objects.get()
    assert (changed.events, changed.description) == (["user.left"], "Ours\nor\rtheirs")


def test_a_webhook_without_events_gets_those_of_both(client: Client, owner: User) -> None:
    """A page that shows none says so."""
    target = make_target(owner)
    WebhookTarget.objects.deregister(URL, owner=owner)
    form = open_form(client, url_of("edit", target))
    WebhookTarget.objects.register(URL, ["user.left"], owner=owner)

    press(client, "edit", target, **form | {"events": "project.done"})

    assert WebhookTarget.objects.get().events == ["project.done", "user.left"]


@pytest.mark.parametrize(("field", "column"), [("description", "description"), ("url", "target_url")])
def test_what_two_change_at_once_is_asked_for_once_more(client: Client, owner: User, field: str, column: str) -> None:
    """The form says what it is now, and who saves it again means it."""
    target = make_target(owner, description="Ours")
    form = open_form(client, url_of("edit", target)) | {field: [URL + "/mine"]}
    WebhookTarget.objects.update(**{column: URL + "/theirs"})

    page = client.post(url_of("edit", target), form)

    assert f"changed meanwhile, to '{URL}/theirs'" in page.context["form"].errors[field][0]
    assert getattr(WebhookTarget.objects.get(), column) == URL + "/theirs"
    again = Form.read(page.content.decode())
    assert again[field] == [URL + "/mine"]
    assert "Saved." in read(press(client, "edit", target, **again))
    assert getattr(WebhookTarget.objects.get(), column) == URL + "/mine"


class StaffSender(Sender):
    """Adds what owners may not know."""


def test_where_the_staff_sends_to_stays(client: Client, owner: User, settings: LazySettings) -> None:
    """A sender that owners cannot choose may send to another address something that is not for them."""
    settings.DJWEBHOOKS_SENDERS = {"staff": f"{__name__}.StaffSender"}
    target = make_target(owner, sender="staff")
    assert "the staff chose" in read(client.get(url_of("edit", target)))

    press(client, "edit", target, url="https://elsewhere.example/", events="a", description="Mine")

    changed = WebhookTarget.objects.get()
    assert (changed.target_url, changed.description) == (URL, "Mine")


def test_a_webhook_is_paused_and_resumed(client: Client, owner: User) -> None:
    """What waits meanwhile is sent then; what would do nothing is not offered."""
    target = make_target(owner)
    page = press(client, "pause", target)
    assert "Paused: events wait" in read(page)
    assert ['action="pause/"' in page.content.decode(), 'action="resume/"' in page.content.decode()] == [False, True]
    assert "It is paused, so nothing is sent" in read(press(client, "probe", target))
    fire("project.update", {}, owner=owner)
    assert deliver() == []

    assert "Resumed" in read(press(client, "resume", target))

    assert len(deliver()) == 1


def test_a_disabled_webhook_is_probed(client: Client, owner: User) -> None:
    """One request finds out whether it works again."""
    target = make_target(owner)
    send(target, 410)
    assert "Try one now" in read(client.get(url_of("target", target)))

    assert "One request is on its way" in read(press(client, "probe", target))

    assert len(deliver()) == 1
    assert WebhookTarget.objects.get().state in ("healthy", "degraded")


def test_a_test_is_sent(client: Client, owner: User) -> None:
    """To this webhook alone."""
    target = make_target(owner)
    make_target(owner, url=URL + "/2")

    assert "A test is on its way" in read(press(client, "test", target))

    assert [request.url for request in deliver()] == [URL]
    assert "webhook.test" in read(client.get(url_of("target", target)))


def test_a_secret_is_rotated(client: Client, owner: User) -> None:
    """The new one is shown this once, and the old one signs beside it."""
    target = make_target(owner, signatures="v1 v1a")

    page = client.post(url_of("rotate-secret", target))

    rotated = WebhookTarget.objects.get()
    assert rotated.secret != target.secret
    assert [page.content.decode().count(text) for text in (rotated.secret, rotated.public_key)] == [1, 1]
    assert "no-store" in page["cache-control"]
    assert [key.secret for key in rotated.keyring.keys] == [rotated.secret, target.secret]
    assert rotated.secret not in client.get(url_of("target", target)).content.decode()


def test_a_webhook_is_deleted_by_who_means_it(client: Client, owner: User) -> None:
    """A page asks first."""
    target = make_target(owner)
    assert "Delete this webhook?" in read(client.get(url_of("delete", target)))

    page = press(client, "delete", target)

    assert page.redirect_chain == [(url_of("targets"), 302)]
    assert f"nothing more is sent to {URL}" in read(page)
    assert "None yet" in read(page)


def test_deliveries_have_pages_and_a_filter(client: Client, owner: User) -> None:
    """The newest come first; a filter or a place that there is not is none."""
    target = make_target(owner)
    for number in range(PAGE + 1):
        fire("project.update", {"n": number}, owner=owner)
    deliver()
    send(target, 500)

    def list_shown(query: str) -> list[int]:
        return [delivery.sequence for delivery, _ in client.get(url_of("target", target) + query).context["deliveries"]]

    assert list_shown("") == list(range(PAGE + 2, 2, -1))
    assert list_shown("?before=3") == [2, 1]
    assert list_shown("?status=pending") == [PAGE + 2]
    assert list_shown(f"?status=succeeded&before={PAGE}") == list(range(PAGE - 1, 0, -1))
    assert list_shown("?status=failed") == []
    for nothing in ("?status=x", "?before=x", "?before=%C2%B2", "?before=" + "9" * 30, "?status=%00&before=-1"):
        assert list_shown(nothing) == list_shown("")
    first = client.get(url_of("target", target) + "?status=succeeded").content.decode()
    assert 'href="?status=succeeded&amp;before=2"' in first


def test_nothing_is_promised_while_a_webhook_is_paused(client: Client, owner: User) -> None:
    """What is asked for waits like everything else: neither an attempt nor its time is announced."""
    target = make_target(owner)
    delivery = send(target, 500)
    assert "HTTP 500 · next" in read(client.get(url_of("target", target)))
    press(client, "pause", target)
    assert "· next" not in read(client.get(url_of("target", target)))

    assert "The test waits" in read(press(client, "test", target))
    assert "It is tried again when its webhook is sent to again." in read(press(client, "retry", delivery))
    assert deliver() == []


# -- deliveries --------------------------------------------------------------------------------------------------------


def test_a_delivery_shows_what_was_sent_and_what_was_answered(client: Client, owner: User) -> None:
    """What the application and the receiver wrote is text, whatever it looks like; the body is that which was sent."""
    delivery = send(make_target(owner), answer_with_markup)

    page = client.get(url_of("delivery", delivery))

    assert "<script" not in page.content.decode()
    text = read(page)
    assert text.count(SCRIPT) == 5
    for words in ("project.update", "500", f"x-said: {SCRIPT}", str(delivery.event.uid), '"said": "', "It is tried again after"):
        assert words in text
    assert Delivery.objects.get().event.bodies.get().content.decode() in text


def test_a_body_in_another_format_is_nobodys(client: Client, owner: User) -> None:
    """Where the target's own format is not written, that of others is not shown in its place."""
    delivery = send(make_target(owner))
    WebhookTarget.objects.update(envelope="flat")

    assert "It was not written in the way in which this webhook is sent to now." in read(client.get(url_of("delivery", delivery)))

    WebhookTarget.objects.update(sender="gone")
    assert "It was not written in the way in which this webhook is sent to now." in read(client.get(url_of("delivery", delivery)))


def test_a_body_that_is_not_written_yet(client: Client, owner: User) -> None:
    """The page says when it will be."""
    fire("project.update", 1, owner=make_target(owner).owner)
    WebhookTarget.objects.get().pause()
    deliver()

    assert "It is written before the first attempt." in read(client.get(url_of("delivery", Delivery.objects.get())))


@pytest.mark.parametrize("name", ["items", "keys", "0"])
def test_a_receiver_may_call_its_headers_anything(client: Client, owner: User, name: str) -> None:
    """Also what a template would take for something else."""
    delivery = send(make_target(owner), lambda request: Reply(request.key, status=500, headers={name: "3", "x-other": "4"}))

    page = read(client.get(url_of("delivery", delivery)))

    assert f"{name}: 3" in page
    assert "x-other: 4" in page


def test_a_large_body_is_cut(client: Client, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so."""
    monkeypatch.setattr(views, "SHOWN", 10)
    delivery = send(make_target(owner))

    page = client.get(url_of("delivery", delivery))

    assert "of which this is the beginning" in read(page)
    assert (page.context["body"], len(page.context["pretty"])) == ('{"type":"p', 10)


def test_a_body_that_is_large_once_it_is_laid_out_is_cut(client: Client, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so, too."""
    delivery = send(make_target(owner))
    monkeypatch.setattr(views, "SHOWN", len(delivery.event.bodies.get().content) + 1)

    assert "of which this is the beginning" in read(client.get(url_of("delivery", delivery)))


def test_a_delivery_is_sent_again(client: Client, owner: User) -> None:
    """The log says who wanted it, and through what."""
    delivery = send(make_target(owner))

    page = press(client, "retry", delivery)

    assert "Another attempt is on its way" in read(page)
    assert len(deliver()) == 1
    assert Attempt.objects.count() == 2
    assert [(replay.requested_by, replay.requested_through) for replay in Replay.objects.all()] == [("ann", "portal")]
    assert [replay["requested_by"] for replay in client.get("/api/replays/").json()["results"]] == ["ann"]


def test_a_delivery_is_cancelled_until_it_has_ended(client: Client, owner: User) -> None:
    """Later, the button is not there, and pressing it on an old page says why nothing is done."""
    delivery = send(make_target(owner), 500)
    assert 'action="cancel/"' in client.get(url_of("delivery", delivery)).content.decode()

    page = press(client, "cancel", delivery)

    assert "Cancelled." in read(page)
    assert 'action="cancel/"' not in page.content.decode()
    assert "It had ended before." in read(press(client, "cancel", delivery))


def test_what_was_erased_is_not_sent_again(client: Client, owner: User) -> None:
    """Neither its body nor a button is left, and pressing one on an old page says why nothing is done."""
    delivery = send(make_target(owner))
    erase_events(Event.objects.all())

    page = client.get(url_of("delivery", delivery))

    assert "It was erased." in read(page)
    assert 'action="retry/"' not in page.content.decode()
    assert SCRIPT not in read(page)
    assert "what it said was erased" in read(press(client, "retry", delivery))


# -- all pages ---------------------------------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Holds a page to what a strict Content-Security-Policy allows, and to tags that are closed where they were opened."""

    def __init__(self, page: HttpResponse) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(page.content.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "iframe", "object", "base")
        assert not [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("href", "action")]
        if tag not in ("input", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def list_pages(client: Client, target: WebhookTarget, delivery: Delivery) -> list[HttpResponse]:
    urls = [url_of("targets"), *(url_of(name, target) for name in ("target", "edit", "delete")), url_of("delivery", delivery)]
    return [client.get(url) for url in urls] + [
        client.post(url_of("rotate-secret", target)),
        client.post(url_of("targets"), {"url": SCRIPT}),
        client.post(url_of("targets"), FORM | {"url": URL + "/new"}),
    ]


@pytest.mark.parametrize("events", [{}, {"project.update": {"description": SCRIPT}, "project.secret": {"internal": True}}])
def test_pages_work_under_a_strict_policy(client: Client, owner: User, settings: LazySettings, events: object) -> None:
    """No page has a script or a style inside, or loads anything but our own style sheet; nor does a cache keep any."""
    settings.DJWEBHOOKS_EVENTS = events
    target = make_target(owner, description=SCRIPT)
    delivery = send(target, answer_with_markup)

    for page in list_pages(client, target, delivery):
        assert page.status_code in (200, 201)
        assert "no-store" in page["cache-control"]
        assert [link for link in Strict(page).links if link.endswith(("css", "js", "png"))] == ["/static/djwebhooks/portal.css"]
        assert "project.secret" not in page.content.decode()


def test_no_page_shows_numbers_of_rows(client: Client, owner: User) -> None:
    """A primary key would tell of everybody's traffic."""
    target, most = make_target(owner), 7_654_321
    WebhookTarget.objects.bulk_create([WebhookTarget(pk=most, owner=owner, target_url=f"{URL}/2", events=["project.*"])])
    Event.objects.create(pk=most, name="project.other", owner=owner, payload="1")
    deliver()

    for page in list_pages(client, WebhookTarget.objects.get(pk=most), Delivery.objects.filter(target=target)[0]):
        assert not re.search("7,?654,?321", page.content.decode())


def test_pages_cost_the_same_for_many_rows(client: Client, owner: User) -> None:
    """However many targets, deliveries and attempts they show."""
    target = make_target(owner)
    delivery = send(target, 500)
    urls = [url_of("targets"), url_of("target", target), url_of("delivery", delivery)]

    def count() -> list[int]:
        counts = []
        for url in urls:
            with CaptureQueriesContext(connection) as queries:
                client.get(url)
            counts.append(len(queries))
        return counts

    count()
    before = count()
    for number in range(3):
        make_target(owner, url=f"{URL}/{number}")
        send(target)
        Delivery.objects.get(pk=delivery.pk).retry()
        deliver(500)

    assert count() == before
    assert max(before) <= 12


def test_the_portal_works_below_an_owners_name(settings: LazySettings) -> None:
    """Its links and redirects stay there, and its rows are those of the owner whom the setting's function finds."""
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.api.world.own_organisation"
    ann, acme = make_owner("ann"), make_owner("acme")
    client = visit(ann)

    added = client.post(url_of("targets", org="acme"), FORM)
    target = WebhookTarget.objects.get(owner=acme)
    changed = client.post(url_of("edit", target, org="acme"), FORM, follow=True)

    assert added.status_code == 201
    assert changed.redirect_chain == [(f"/orgs/acme/portal/targets/{target.uid}/", 302)]
    assert client.post(url_of("delete", target, org="acme")).headers["location"] == "/orgs/acme/portal/"
    delivery = send(make_target(acme))
    assert client.get(url_of("delivery", delivery, org="acme")).status_code == 200
    assert client.get(url_of("delivery", delivery, org="ann")).status_code == 404
    assert [client.get(url_of("targets", org=org)).status_code for org in ("closed", "nobody")] == [403, 403]


@pytest.mark.parametrize("prefix", ["/portal/", "/orgs/acme/portal/"])
def test_every_link_leads_somewhere(prefix: str, settings: LazySettings) -> None:
    """They are relative, and every page that they lead to is there, or takes the form that is posted to it."""
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.portal.test_views.find_acme"
    acme = make_owner("acme")
    client = visit(acme)
    send(make_target(acme), 410)
    seen, ahead = set[str](), {prefix}
    while ahead:
        url = ahead.pop()
        seen.add(url)
        page = client.get(url)
        assert page.status_code == 200 or (page.status_code == 405 and url.startswith(prefix)), url
        if page.status_code == 200:
            ahead |= {
                urljoin(url, link) for link in Strict(page).links if not link.endswith("css") and not link.startswith(("?", "#"))
            } - seen

    assert all(url.startswith(prefix) for url in seen)
    assert {url.removeprefix(prefix).partition("/")[0] for url in seen} == {"", "targets", "deliveries"}
    assert len(seen) == 1 + 8 + 2


def find_acme(request: object, org: str = "") -> User:
    """For DJWEBHOOKS_REQUEST_OWNER."""
    return User.objects.get(username="acme")


def test_the_links_of_a_new_secret_lead_back(client: Client, owner: User) -> None:
    """To the page of the webhook, both from a new one and from one that was rotated."""
    added = client.post(url_of("targets"), FORM)
    target = WebhookTarget.objects.get()
    rotated = client.post(url_of("rotate-secret", target))

    for page in (added, rotated):
        assert urljoin(page.request["PATH_INFO"], Strict(page).links[-1]) == url_of("target", target)


def test_an_owner_that_cannot_own_is_a_fault_of_the_setting(settings: LazySettings, owner: User) -> None:
    """As with the API, it is not the visitor's."""
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.api.world.own_name"
    client = visit(owner, raise_request_exception=False)

    assert client.get(url_of("targets")).status_code == 500
