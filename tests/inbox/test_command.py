"""``manage.py webhooks inbox``, and the inbox beside the sender's own work."""

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
