"""Show the whole way of a webhook on this machine: a comment in the Retro Guestbook, sent, recorded, taken in and handled.

It starts a Redis (or takes the one in ``REDIS_URL``), the guestbook and an RQ worker, and a receiver with a worker of its own,
which share nothing with the guestbook but HTTP and a secret. It leaves a comment as a visitor would, prints what became of its
webhook on both sides and stays up until Ctrl-C. All that it makes is in a temporary directory.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
import requests
from django.apps import apps
from django.core.management import call_command
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

ROOT = Path(__file__).resolve().parent.parent
# Python puts the directory of this file first, but the project is imported by its full name.
sys.path[0] = str(ROOT)

from example_project.services import (  # noqa: E402 (the path comes first)
    Programs,
    ServiceError,
    guarded_programs,
    pick_free_port,
    redis_server,
    wait_until,
)

EVENT = "guestbook.comment.created"
USER = PASSWORD = "demo"
#: Seconds within which a server answers and a delivery is recorded. Generous: a slow machine is not an error.
PATIENCE = 60
MANAGE = [sys.executable, str(ROOT / "example_project" / "manage.py")]
#: What the receiver, a project of its own, does before it starts.
PREPARE = """
import django, sys
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_superuser(sys.argv[1], password=sys.argv[1])
"""
#: The name that the receiver has for the guestbook: a part of its address.
SOURCE = "webhooks/guestbook/"
#: How many characters of a child's log are shown.
LOG_TAIL = 6000


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C, closed the terminal or sent SIGTERM."""


# -- processes ---------------------------------------------------------------------------------------------------------


class Child:
    """A ``manage.py`` command in a process of its own, which a guard ends with the demo, however that ends."""

    def __init__(
        self, programs: Programs, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.programs = programs
        self.name = name
        self.log = log
        self.number = programs.start([*MANAGE, *arguments], {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}, log)

    def has_ended(self) -> bool:
        return self.programs.has_ended(self.number)

    def end(self) -> None:
        self.programs.end(self.number)

    def read_log(self) -> str:
        """The end of what it said; nothing when a guard that was told to end has taken the log away."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log and self.log.exists() else ""


class Stage:
    """Everything that runs, so that all of it can be watched and ended."""

    programs: Programs

    def __init__(self, *, verbose: bool) -> None:
        self.verbose = verbose
        self.environment: dict[str, str] = {}
        self.children: list[Child] = []
        self.is_interrupted = False

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start ``manage.py`` with *arguments*, in the guestbook's environment unless it is given another one."""
        log = None if self.verbose else self.programs.directory / f"{name}.log"
        child = Child(self.programs, name, arguments, self.environment if environment is None else environment, log)
        self.children.append(child)
        return child

    def end(self) -> None:
        """End the children, the last one first."""
        # A guard that has ended has ended them.
        with suppress(ServiceError):
            for child in reversed(self.children):
                child.end()

    def watch(self) -> bool:
        """Return ``False``, as all is well. Raises ``Interrupted``, or ``DemoError`` for a child that has ended."""
        if self.is_interrupted:
            raise Interrupted
        for child in self.children:
            if child.has_ended():
                raise DemoError(f"The {child.name} has ended by itself.")
        return False

    def wait_for(self, is_true: Callable[[], bool], seconds: float) -> bool:
        """Whether it becomes true in time, while everything stays up."""
        return wait_until(lambda: is_true() or self.watch(), seconds)

    def print_logs(self) -> None:
        """Print what the children said."""
        for child in self.children:
            if text := child.read_log().strip():
                print(f"\n----- {child.name} -----\n{text}", file=sys.stderr, flush=True)


@contextmanager
def noticing_interrupts(stage: Stage) -> Iterator[None]:
    """Note signals instead of breaking off wherever the demo is: it looks between its steps, so that none is half done."""

    def note(*_: object) -> None:
        stage.is_interrupted = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# -- the servers -------------------------------------------------------------------------------------------------------


def provide_redis(stack: ExitStack, stage: Stage) -> None:
    """Take the Redis of ``REDIS_URL``, on a queue of our own that is removed in the end, or start one."""
    url = os.environ.get("REDIS_URL", "")
    if not url:
        stage.environment |= {"REDIS_URL": stack.enter_context(redis_server()).url, "GUESTBOOK_QUEUE": "default"}
        return
    # Other applications' jobs may be on the queue "default", and are not ours to run.
    queue = f"guestbook-demo-{secrets.token_hex(4)}"
    check_redis(url)
    stage.environment |= {"REDIS_URL": url, "GUESTBOOK_QUEUE": queue}
    stack.callback(remove_queue, url, queue)


def connect(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0))


def check_redis(url: str) -> None:
    """Raise ``DemoError`` when there is no Redis at *url*, whose password is not shown."""
    try:
        with closing(connect(url)) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        shown = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()
        raise DemoError(
            f"There is no Redis at {shown}, which REDIS_URL names: {error}\n"
            "Correct REDIS_URL, or unset it, and the demo starts a Redis of its own."
        ) from error


def remove_queue(url: str, name: str) -> None:
    """Leave nothing of the demo's queue in somebody's Redis."""
    try:
        with closing(connect(url)) as client:
            queue = Queue(name, connection=client)
            registries = (queue.scheduled_job_registry, queue.failed_job_registry, queue.started_job_registry)
            planned = [job for registry in registries for job in registry.get_job_ids(cleanup=False)]
            queue.delete(delete_jobs=True)
            # The name is random, so whatever has it in its own is ours.
            left = [f"rq:job:{job}" for job in planned] + list(client.scan_iter(f"*{name}*", count=1000))
            if left:
                client.delete(*left)
    except RedisError as error:
        print(f"The queue {name} could not be removed from Redis: {error}", file=sys.stderr)


def prepare_database(stage: Stage) -> None:
    """Make the tables, and the one user, who keeps the guestbook."""
    stage.environment |= {
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "GUESTBOOK_DATABASE": str(stage.programs.directory / "guestbook.sqlite3"),
        # The keeper has the receiver's address already, at whichever port it is.
        "GUESTBOOK_RECEIVER": "",
    }
    os.environ.update(stage.environment)
    django.setup()
    call_command("migrate", verbosity=0)
    model("auth.User").objects.create_superuser(USER, password=PASSWORD)


def model(label: str) -> Any:
    """A model by its label: models cannot be imported before Django knows its settings."""
    return apps.get_model(label)


def start_site(stage: Stage, name: str, port: int, prepare: Callable[[str], dict[str, str] | None]) -> str:
    """Start a site on *port*, or on a free one for 0; return its address when it answers.

    *prepare* is told the address before, and returns the site's environment, or nothing for the guestbook's.
    """
    # Somebody may take the free port before our process does; a port that was asked for is tried once.
    for chance in range(1 if port else 3, 0, -1):
        url = f"http://127.0.0.1:{port or pick_free_port()}/"
        environment = prepare(url)
        child = stage.start(name, "runserver", "--noreload", urlsplit(url).netloc, environment=environment)
        try:
            if not stage.wait_for(partial(has_answer, url), PATIENCE):
                raise DemoError(f"The {name} does not answer at {url} after {PATIENCE} s.")
            return url
        except DemoError:
            if chance == 1 or not child.has_ended():
                raise
            stage.children.remove(child)
            child.end()
    raise AssertionError


def check_port(port: int) -> None:
    """Raise ``DemoError`` for a port that cannot be had, as another server may be taken for ours there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise DemoError(
                f"Port {port} of 127.0.0.1 cannot be used: {error}\nChoose another, or none for a free one."
            ) from error


@contextmanager
def browser() -> Iterator[requests.Session]:
    """A session that asks this machine, whatever proxy the environment names."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


def has_answer(url: str) -> bool:
    with browser() as session:
        try:
            return session.get(url, timeout=5).ok
        except requests.RequestException:
            return False


# -- the story ---------------------------------------------------------------------------------------------------------


def name_receiver(stage: Stage) -> dict[str, str]:
    """The receiver's environment."""
    return {
        "DJANGO_SETTINGS_MODULE": "example_project.receiver.settings",
        "RECEIVER_DATABASE": str(stage.programs.directory / "receiver.sqlite3"),
    }


def prepare_receiver(stack: ExitStack, environment: Mapping[str, str]) -> Callable[[], None]:
    """Begin to make the receiver's own tables, and a user of its admin; return what waits until they are there."""
    command = [sys.executable, "-c", PREPARE, USER]
    pipe, surroundings = subprocess.PIPE, {**os.environ, **environment}
    process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=surroundings, stderr=pipe, text=True))

    def finish() -> None:
        _, said = process.communicate()
        if process.returncode:
            raise DemoError(f"The receiver's tables could not be made:\n{said}")

    return finish


def introduce(environment: dict[str, str], site: str, receiver: str) -> dict[str, str]:
    """Have the keeper add the receiver as a webhook; tell the receiver the secret, and where the feed is."""
    keeper = model("auth.User").objects.get(username=USER)
    target = model("djwebhooks.WebhookTarget").objects.register(f"{receiver}{SOURCE}", [EVENT], owner=keeper)
    environment |= {"RECEIVER_SECRET": str(target.secret), "RECEIVER_FEED": f"{site}api/feed/?target={target.uid}"}
    return environment


def leave_comment(site: str) -> None:
    """Sign the guestbook as a visitor does: get the form, fill it in, send it."""
    with browser() as session:
        try:
            session.get(site, timeout=PATIENCE).raise_for_status()
            form = {
                "csrfmiddlewaretoken": session.cookies["csrftoken"],
                "name": "Daisy",
                "message": "What a lovely guestbook! I found it through a web ring.\n\nGreetings to everybody who reads this :-)",
            }
            answer = session.post(site, data=form, timeout=PATIENCE)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise DemoError(f"The comment could not be left: {error}") from error
    if "Thank you for signing, Daisy!" not in answer.text:
        raise DemoError(f"The guestbook at {site} did not say thank you for the comment.")


def find_delivery() -> Any:
    """The comment's delivery, once a worker has made one."""
    return model("djwebhooks.Delivery").objects.filter(event__name=EVENT).select_related("event", "target").first()


def await_delivery(stage: Stage) -> Any:
    """Return the delivery when it has succeeded. Raises ``DemoError`` when it ends otherwise, or not in time."""

    def has_finished() -> bool:
        delivery = find_delivery()
        return delivery is not None and delivery.is_finished

    in_time = stage.wait_for(has_finished, PATIENCE)
    delivery = find_delivery()
    if delivery is None:
        raise DemoError(f"The event was saved, but no worker has made a delivery of it within {PATIENCE} s.")
    if not in_time or delivery.status != "succeeded":
        print_delivery(delivery)
        late = "" if in_time else f" after {PATIENCE} s"
        raise DemoError(f"The delivery is {delivery.status}{late}; its attempts are above.")
    return delivery


def print_delivery(delivery: Any) -> None:
    """Print a delivery and its attempts as they are in the guestbook's database."""
    show("event", f"{delivery.event.name}  {delivery.event.uid}")
    show("target", delivery.target.target_url)
    attempts = list(delivery.attempts.all())
    reason = f" ({delivery.reason})" if delivery.reason else ""
    show("delivery", f"{delivery.status}{reason}, sequence {delivery.sequence}, attempts: {delivery.attempt_count}")
    for attempt in attempts:
        show(f"attempt {attempt.number}", describe_attempt(attempt))


def await_message(stage: Stage, receiver: str, message_id: str) -> None:
    """Print what the receiver says of the message once its handler has run. Raises ``DemoError`` if it does not, in time."""
    told: dict[str, Any] = {}

    def is_handled() -> bool:
        with browser() as session:
            answer = session.get(f"{receiver}messages/{message_id}/", timeout=PATIENCE)
        told.update(answer.json() if answer.ok else {"status": f"not there: {answer.status_code}"})
        return bool(told["status"] == "processed")

    if not stage.wait_for(is_handled, PATIENCE):
        raise DemoError(f"The receiver's message is {told.get('status')} after {PATIENCE} s.")
    show("message", f"verified, stored and {told['status']}, attempt {told['attempt']}, sequence {told['sequence']}")
    show("handler", f"printed {told['printed']!r}")


def describe_attempt(attempt: Any) -> str:
    answer = f"{attempt.error}: {attempt.detail}" if attempt.error else f"{attempt.status_code} {attempt.response_body}"
    return f"{attempt.started_at:%H:%M:%S} to {attempt.address or 'nowhere'}, {attempt.duration:.3f} s: {answer.strip()}"


def show(title: str, text: str) -> None:
    print(f"  {title:<10} {text}", flush=True)


def play(stack: ExitStack, stage: Stage, options: argparse.Namespace) -> None:
    """Set everything up, and tell the story once."""
    for port in (options.port, options.receiver_port):
        if port:
            check_port(port)
    say("Starting Redis, the guestbook with an RQ worker, and a receiver with a worker of its own …")
    environment = name_receiver(stage)
    finish_preparation = prepare_receiver(stack, environment)
    provide_redis(stack, stage)
    # After Redis, so that it ends before: whoever loses its Redis first complains.
    stack.callback(stage.end)
    stage.watch()
    prepare_database(stage)
    stage.watch()
    site = start_site(stage, "guestbook", options.port, lambda url: None)
    finish_preparation()
    receiver = start_site(stage, "receiver", options.receiver_port, partial(introduce, environment, site))
    stage.start("handlers", "webhooks", "inbox", environment=environment)
    queue = stage.environment["GUESTBOOK_QUEUE"]
    stage.start("worker", "rqworker", queue, "--with-scheduler", "--name", f"{queue}-worker")
    stage.watch()
    say("A visitor leaves a comment. Its webhook, as the guestbook has recorded it, and as the receiver has:\n")
    leave_comment(site)
    delivery = await_delivery(stage)
    print_delivery(delivery)
    await_message(stage, receiver, str(delivery.event.uid))
    if options.once:
        return
    say("\nLook around:\n")
    show("guestbook", site)
    show("webhooks", f"{site}webhooks/")
    show("portal", f"{site}portal/")
    show("queue", f"{site}django-rq/")
    show("admin", f"{site}admin/")
    show("receiver", receiver)
    show("its inbox", f"{receiver}admin/")
    say(f"\nLog in as {USER} with the password {PASSWORD}.")
    say("\nCtrl-C ends it, and takes everything away.")
    with suppress(Interrupted):
        stage.wait_for(lambda: False, float("inf"))
    say("\nEnding.")


def say(text: str) -> None:
    print(text, flush=True)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Play with the Retro Guestbook and its webhooks on this machine.")
    parser.add_argument("--once", action="store_true", help="end when the delivery is recorded: 0 if it succeeded")
    parser.add_argument("--port", type=int, default=0, help="the guestbook's port (default: a free one)")
    parser.add_argument("--receiver-port", type=int, default=0, help="the receiver's port (default: a free one)")
    parser.add_argument("--verbose", action="store_true", help="show what the processes say")
    options = parser.parse_args(arguments)
    if options.port and options.port == options.receiver_port:
        parser.error(f"the guestbook and its receiver cannot both have port {options.port}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return the exit code."""
    options = read_options(arguments)
    with ExitStack() as stack:
        stage = Stage(verbose=options.verbose)
        stack.enter_context(noticing_interrupts(stage))
        try:
            stage.programs = stack.enter_context(guarded_programs())
            play(stack, stage, options)
        except Interrupted:
            return 130
        except (DemoError, ServiceError) as error:
            stage.print_logs()
            print(f"\nThe demo failed. {error}", file=sys.stderr, flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
