"""``manage.py webhooks inbox``, and the inbox beside the sender's own work."""

import json
import signal
from io import StringIO

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError, SystemCheckError

from djwebhooks.events import fire
from djwebhooks.inbox.management.commands.webhooks import Command as InboxAppsCommand
from djwebhooks.inbox.models import Message, Status
from djwebhooks.management.commands.webhooks import Command
from djwebhooks.testing import Receiver, answer
from tests.connections import server_only
from tests.engines.processes import wait_until
from tests.faults.processes import Launcher
from tests.inbox.senders import store
from tests.inbox.shop.models import Effect

processes = pytest.mark.django_db(transaction=True)


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("webhooks", *arguments, stdout=output, no_color=True)
    return output.getvalue().splitlines()


@pytest.mark.django_db
def test_a_burst_says_what_it_did() -> None:
    """One line at its start, one at its end; of one source, if it is told so."""
    for source in ("shop", "github"):
        store(source=source)

    assert run("inbox", "--burst", "--source", "shop") == [
        "Working on the inbox in database 'default', until nothing is due.",
        "Ended, with 1 message worked on.",
    ]
    assert run("inbox", "--burst")[-1] == "Ended, with 1 message worked on."
    assert run("inbox", "--burst")[-1] == "Ended, with 0 messages worked on."
    with pytest.raises(CommandError, match="has no source 'shp', but github, shop"):
        run("inbox", "--source", "shp")


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("value", [None, 5])
def test_a_setting_that_is_no_dictionary_is_said_by_the_checks(settings: LazySettings, value: object) -> None:
    """Whichever verb is called, it must not fail before they run."""
    settings.DJWEBHOOKS_INBOX = value

    with pytest.raises(SystemCheckError, match="DJWEBHOOKS_INBOX must be a dictionary, not a"):
        call_command("webhooks", "stats", skip_checks=False)


@pytest.mark.django_db
def test_gaps_are_listed() -> None:
    """Of all sources, or of those that are named."""
    assert run("inbox", "--gaps") == ["No number is missing."]

    for number in (17, 21):
        store(sequence=number, received_at="2096-09-21T14:13:20Z")

    assert run("inbox", "--gaps") == ["shop: 18 to 20 missing, noticed 2096-09-21 14:13:20 UTC"]
    assert run("inbox", "--gaps", "--source", "github") == ["No number is missing."]


@pytest.mark.django_db
def test_what_is_missing_is_asked_for(settings: LazySettings, receiver: Receiver) -> None:
    """Of all that have a feed, or of those that are named; what is still missing is listed, and a failure ends with 1."""
    with pytest.raises(CommandError, match="No source of DJWEBHOOKS_INBOX has a 'feed_url'"):
        run("inbox", "--fetch")
    store(sequence=17)
    store(sequence=19, received_at="2096-09-21T14:13:20Z")
    shop = {**settings.DJWEBHOOKS_INBOX["shop"], "feed_url": f"{receiver.url}?target=1"}
    settings.DJWEBHOOKS_INBOX = {**settings.DJWEBHOOKS_INBOX, "shop": shop}
    receiver.answers = [answer(200, b'{"after": 17, "has_more": false, "waiting_for": 18, "results": []}')]

    assert run("inbox", "--fetch") == [
        "shop: 0 stored.",
        "shop: Number 18 has yet to be built by the sender: ask again later.",
        "shop: 18 missing, noticed 2096-09-21 14:13:20 UTC",
    ]
    assert run("inbox", "--fetch", "--source", "shop", "--after", "3")[0] == "shop: 0 stored."
    assert [request.path for request in receiver.requests] == ["/hook?target=1&after=17", "/hook?target=1&after=3"]

    receiver.answers = [503]
    with pytest.raises(CommandError, match="Not everything could be asked for of shop"):
        run("inbox", "--fetch")
    with pytest.raises(CommandError, match="no source 'github' with a 'feed_url'"):
        run("inbox", "--fetch", "--source", "github")
    for arguments in (["--fetch", "--after", "1"], ["--source", "shop", "--after", "1"]):
        with pytest.raises(CommandError, match="--after goes with --fetch and one --source"):
            run("inbox", *arguments)
    with pytest.raises(CommandError, match="'x' is no number of a message"):
        run("inbox", "--after", "x")


@pytest.mark.django_db
def test_the_senders_verbs_know_the_inbox() -> None:
    """Its numbers stand below the sender's; what messages say of somebody goes with what events said, or alone."""
    store(body=b"ada@example.com", received_at="2096-09-21T14:13:20Z", due_at="2096-09-21T14:13:20Z")
    owner = User.objects.create(username="ada")

    assert run("stats")[-1] == "Inbox       0 due, 1 to be tried again; within a day 1 came, 0 failed, 0 rejected"
    assert json.loads("".join(run("stats", "--format", "json")))["inbox"]["later"] == 1
    assert run("erase", "--saying", "ada@example.com", "--dry-run") == ["Would erase 1 message of the inbox."]
    assert run("erase", "auth.user", str(owner.pk), "--saying", "Ada@example.com") == [
        "Erased the payloads of 0 events and the answers to 0 attempts.",
        "Erased 1 message of the inbox.",
    ]
    for arguments in ([], ["auth.user"], ["auth.user", "--saying", "x"]):
        with pytest.raises(CommandError, match="Say whose data is erased"):
            run("erase", *arguments)
    with pytest.raises(CommandError, match="Every message says an empty text"):
        run("erase", "--saying", "")


@processes
def test_it_works_until_it_is_stopped(launcher: Launcher) -> None:
    """SIGTERM ends it in order."""
    worker = launcher.command("webhooks", "inbox")
    store()
    wait_until(lambda: Effect.objects.count() == 2, f"the message is worked on: {worker.output}")
    worker.send_signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert worker.output.splitlines()[-1] == "Ended, with 1 message worked on."


@processes
def test_the_senders_worker_runs_handlers_too(launcher: Launcher) -> None:
    """And ends together with the inbox."""
    worker = launcher.command("webhooks", "work")
    store()
    wait_until(lambda: Effect.objects.count() == 2, "the message is worked on")
    worker.send_signal(signal.SIGTERM)

    assert worker.wait() == 0


@server_only
@processes
def test_a_slow_handler_holds_up_no_sending(launcher: Launcher) -> None:
    """It waits here for what is sent meanwhile. On SQLite nobody else can write while it runs."""
    fire("a", {}, owner=User.objects.create(username="owner"))
    store("order.patient")
    launcher.command("webhooks", "work", "--burst").wait()

    assert Message.objects.get().status == Status.PROCESSED


@processes
def test_the_senders_burst_drains_the_inbox() -> None:
    """Unless it is for certain targets."""
    store()
    run("work", "--burst")

    assert Message.objects.get().status == Status.PROCESSED


def test_there_is_one_command_whichever_app_comes_first() -> None:
    """Django takes the command of the first one, and both are the same."""
    assert InboxAppsCommand is Command
    assert type(load_command_class("djwebhooks.inbox", "webhooks")) is Command
