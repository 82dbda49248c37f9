"""Secrets that stand out are looked for, in every spelling, in all that is left of a run through everything."""

import base64
import json
import logging
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote

import django
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils.log import AdminEmailHandler
from redis import Redis

import djwebhooks
from djwebhooks import encryption, signing
from djwebhooks.database import execute
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.hidden import hide
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.signals import work_written
from djwebhooks.testing.receiver import Conversation, Receiver
from djwebhooks.worker import Worker
from tests.engines.processes import rqworker
from tests.keys import make_certificate, make_strict_context
from tests.leaks import spell

MakeEnvironment = Callable[..., dict[str, str]]

SECRET_KEY = "canary of the secret key, 6f1e0d3c9b8a7f5e"
HEADER = "canary-of-a-header-4c2a9e"
PASSWORD = "canary of a password/7d1b+3?"
BEARER = "canary-of-a-bearer-91f0c4"
CLIENT_SECRET = "canary-of-a-client-b35e77"
ACCESS_TOKEN = "canary-of-an-access-token-2d6a18"
SIGNING_KEY = "canary of a key for tokens, of 32 bytes and more"
CODED = "application/json"
#: Django 6.0 wants addresses alone, earlier ones pairs.
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
#: A pattern for what only the page that answers to the making of a secret shows.
SECRET = re.compile(rb"whsec_([A-Za-z0-9+/]{43}=)")


@dataclass(frozen=True)
class Canary:
    """A secret, and the places where it has to be found, so that the search is known to find. It must be nowhere else."""

    name: str
    value: bytes
    belongs: frozenset[str] = frozenset()


class Places:
    """All that the run leaves behind, by the name of the place."""

    def __init__(self) -> None:
        self.contents: dict[str, list[bytes]] = defaultdict(list)

    def add(self, place: str, content: bytes | str) -> None:
        self.contents[place].append(content if isinstance(content, bytes) else content.encode(errors="surrogateescape"))

    def find(self, canary: Canary) -> set[str]:
        wanted = spell(canary.value)
        return {place for place, contents in self.contents.items() if any(one in text for one in wanted for text in contents)}


def test_each_spelling_is_found() -> None:
    """Whatever stands before it, and however it is written."""
    canary = Canary("a", b"canary/?\xff value")
    for prefix in (b"", b"x", b"xy"):
        for write in (bytes.hex, base64.b64encode, base64.urlsafe_b64encode, repr, lambda text: quote(text, safe="")):
            places = Places()
            written = write(prefix + canary.value)
            places.add("here", written)
            places.add("there", "nothing")
            assert places.find(canary) == {"here"}, written


# -- what the run leaves behind ----------------------------------------------------------------------------------------


def dump_database(places: Places) -> None:
    """Every column of every table, and on SQLite the very bytes of the file."""
    for table in connection.introspection.table_names():
        for row in execute("default", f"SELECT * FROM {connection.ops.quote_name(table)}"):
            for value in row:
                places.add("database", bytes(value) if isinstance(value, memoryview | bytes) else str(value))
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        with closing(sqlite3.connect(name)) as checkpoint:
            checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # In another process: to close one of these files here would give back the locks of this process's connections (fcntl(2)).
        read = subprocess.run(["cat", *Path(name).parent.glob(f"{Path(name).name}*")], capture_output=True, check=True)
        places.add("database", read.stdout)


def dump_redis(places: Places, url: str) -> None:
    """Every key with its value, also what RQ has compressed."""
    client = Redis.from_url(url)
    keys = client.keys("*")
    assert keys
    for key in keys:
        places.add("redis", key)
        places.add("redis", client.dump(key) or b"")
        if client.type(key) == b"hash":
            for value in client.hgetall(key).values():
                places.add("redis", value)
                try:
                    places.add("redis", zlib.decompress(value))
                except zlib.error:
                    continue


def read_processes(places: Places, pid: int) -> None:
    """The command lines of all processes, and the environment of one that is told settings there."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            places.add("command lines", path.read_bytes())
        except OSError:
            continue  # It has ended.
    places.add("environment", Path(f"/proc/{pid}/environ").read_bytes())


@contextmanager
def logging_all(path: Path) -> Iterator[None]:
    """Log everything, statements of SQL included, into a file, and mail what goes wrong with its traceback."""
    root, requests = logging.getLogger(), logging.getLogger("django.request")
    written, mailed = logging.FileHandler(path), AdminEmailHandler(include_html=True)
    level = root.level
    root.addHandler(written)
    requests.addHandler(mailed)
    root.setLevel(logging.DEBUG)
    connection.force_debug_cursor = True
    try:
        yield
    finally:
        connection.force_debug_cursor = False
        root.setLevel(level)
        requests.removeHandler(mailed)
        root.removeHandler(written)
        written.close()


def log_settings(path: Path) -> dict[str, Any]:
    """The same for another process."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(path)}},
        "root": {"handlers": ["file"], "level": "DEBUG"},
        "loggers": {"django.db.backends": {"level": "DEBUG"}},
    }


# -- the run -----------------------------------------------------------------------------------------------------------


@hook("canary.hooked")
def hooked(owner: User) -> dict[str, str]:
    return {"name": owner.username}


@hook("canary.broken")
def broken(owner: User) -> None:
    raise ValueError("No payload today.")


def answer(conversation: Conversation) -> None:
    """Answer as the path says: well, badly, with a redirect, or with what is no HTTP."""
    while request := conversation.read():
        match request.path:
            case "/junk":
                conversation.send(b"junk\r\n\r\n")
                return
            case "/away":
                conversation.answer(302, location="http://127.0.0.1:1/")
            case "/reset":
                conversation.reset()
                return
            case "/token":
                token = {"access_token": ACCESS_TOKEN, "token_type": "bearer", "expires_in": 3600}
                conversation.answer(200, json.dumps(token).encode(), content_type=CODED)
            case path:
                conversation.answer(500 if path == "/bad" else 200, b"thanks")


class Run:
    """Uses everything that has to do with secrets, and collects what can be seen of it."""

    def __init__(self, receiver: Receiver, guarded: Receiver, certificate: str) -> None:
        self.places = Places()
        self.receiver = receiver
        self.base = receiver.url.removesuffix("/hook")
        self.guarded = guarded
        self.certificate = certificate
        self.owner = User.objects.create_superuser("canary")
        self.client = Client(raise_request_exception=False)
        self.client.force_login(self.owner)
        self.secrets: list[bytes] = []

    def call(self, place: str, method: str, path: str, data: Any = None, **options: Any) -> HttpResponse:
        body = data if isinstance(data, str) else json.dumps(data) if data else ""
        response: HttpResponse = self.client.generic(method, path, body, **options)
        self.places.add(place, response.content)
        self.places.add(place, str(response.headers) + str(self.client.cookies))
        return response

    def learn_secret(self, response: HttpResponse) -> None:
        """Remember the secret that an answer shows, which must be one."""
        [secret] = SECRET.findall(response.content)
        self.secrets.append(secret)

    def use_api(self) -> None:
        fields = {
            "target_url": f"{self.base}/good",
            "events": ["*"],
            "headers": {"x-password": HEADER},
            "authentication": {"type": "basic", "username": "djwebhooks", "password": PASSWORD},
            "client_certificate": self.certificate,
            "signatures": "v1 v1a",
        }
        made = self.call("answer to a creation", "POST", "/api/targets/", fields, content_type=CODED)
        assert made.status_code == 201
        self.learn_secret(made)
        uid = WebhookTarget.objects.get().uid
        self.learn_secret(self.call("answer to a rotation", "POST", f"/api/targets/{uid}/rotate-secret/", content_type=CODED))
        self.call("the target itself", "GET", f"/api/targets/{uid}/")
        with failing_after(WebhookTarget):
            for path, data in [
                ("/api/targets/", fields | {"target_url": f"{self.base}/e"}),
                (f"/api/targets/{uid}/rotate-secret/", {}),
            ]:
                assert self.call("pages of errors", "POST", path, data, content_type=CODED).status_code == 500

    def use_admin(self) -> None:
        page = "/admin/djwebhooks/webhooktarget/"
        form = {
            "target_url": f"{self.base}/bad",
            "owner": str(self.owner.pk),
            "is_active": "on",
            "rate_period": "second",
            "headers": f'{{"x-password": "{HEADER}"}}',
            "authentication_type": "bearer",
            "authentication_parts": f'{{"token": "{BEARER}"}}',
            "subscriptions-TOTAL_FORMS": "1",
            "subscriptions-INITIAL_FORMS": "0",
            "subscriptions-0-event": "*",
        }
        made = self.client.post(f"{page}add/", form)
        self.places.add("page after a creation", made.content)
        self.learn_secret(made)
        target = WebhookTarget.objects.get(target_url=form["target_url"])
        with failing_after(WebhookTarget):
            failed = self.client.post(f"{page}add/", form | {"target_url": f"{self.base}/e"})
            assert failed.status_code == 500
            self.places.add("pages of errors", failed.content)
            failed = self.client.post(f"{page}{target.pk}/act/rotate-secret/")
            assert failed.status_code == 500
        rotated = self.client.post(f"{page}{target.pk}/act/rotate-secret/")
        self.places.add("page after a rotation", rotated.content)
        self.learn_secret(rotated)

    def use_portal(self) -> None:
        form = {"url": f"{self.base}/portal", "events": "*"}
        made = self.client.post("/portal/", form)
        self.places.add("page after a creation", made.content)
        self.learn_secret(made)
        target = WebhookTarget.objects.get(target_url=form["url"])
        with failing_after(WebhookTarget):
            for path, data in [
                ("/portal/", form | {"url": f"{self.base}/e"}),
                (f"/portal/targets/{target.uid}/rotate-secret/", {}),
            ]:
                failed = self.client.post(path, data)
                assert failed.status_code == 500
                self.places.add("pages of errors", failed.content)
        rotated = self.client.post(f"/portal/targets/{target.uid}/rotate-secret/")
        self.places.add("page after a rotation", rotated.content)
        self.learn_secret(rotated)

    def look_at_pages(self) -> None:
        target = WebhookTarget.objects.get(target_url__endswith="/bad")
        # What people have typed into a form, they can see in it.
        self.call("the target itself", "GET", f"/admin/djwebhooks/webhooktarget/{target.pk}/change/")
        pages = [
            f"webhooktarget/{target.pk}/history/",
            "replay/",
            f"replay/{Replay.objects.all()[0].pk}/change/",
            f"event/{Event.objects.all()[0].pk}/change/",
        ]
        pages += [f"delivery/{delivery.pk}/change/" for delivery in Delivery.objects.all()]
        for page in ["webhooktarget/", "event/", "delivery/", *pages]:
            assert self.call("admin", "GET", f"/admin/djwebhooks/{page}").status_code == 200
        for page in ["events/", "deliveries/", "attempts/", "event-types/", "replays/"]:
            assert self.call("api", "GET", f"/api/{page}").status_code == 200
        pages = [f"targets/{target.uid}/" for target in WebhookTarget.objects.all()]
        pages += [f"{page}{name}/" for page in pages for name in ("edit", "delete")]
        pages += [f"deliveries/{delivery.uid}/" for delivery in Delivery.objects.filter(target__is_hidden=False)]
        for page in ["", *pages]:
            assert self.call("portal", "GET", f"/portal/{page}").status_code == 200
        for row in (*WebhookTarget.objects.all(), *Delivery.objects.all(), *Attempt.objects.all()):
            self.places.add("reprs", f"{row!r} {row} {vars(row)}")

    def fire_all(self) -> None:
        for path in ("away", "junk", "reset"):
            WebhookTarget.objects.register(f"{self.base}/{path}", ["*"], owner=self.owner, headers={"x-password": HEADER})
        client = {"type": "oauth2", "token_url": f"{self.base}/token", "client_id": "djwebhooks", "client_secret": CLIENT_SECRET}
        WebhookTarget.objects.register(f"{self.base}/client", ["*"], owner=self.owner, authentication=client)
        signer = {"type": "jwt", "key": SIGNING_KEY, "algorithm": "HS256"}
        WebhookTarget.objects.register(f"{self.base}/signed", ["*"], owner=self.owner, authentication=signer)
        certificate = {"client_certificate": self.certificate}
        WebhookTarget.objects.register(self.guarded.url, ["*"], owner=self.owner, **certificate)
        fire("canary.fired", {"n": 1}, owner=self.owner)
        hooked(self.owner)
        broken(self.owner)

    def replay(self) -> None:
        """Have what failed sent again, in each way that people have."""
        by_api, by_admin, by_command = (self.uid_of(path) for path in ("/away", "/junk", "/reset"))
        started = self.call("api", "POST", f"/api/targets/{by_api}/replay/", {"status": ["failed"]}, content_type=CODED)
        assert started.status_code == 202
        self.places.add(
            "admin", self.client.post("/admin/djwebhooks/replay/add/", {"targets": by_admin, "status": "failed"}).content
        )
        self.run_command("webhooks", "replay", "--target", by_command)
        assert Replay.objects.filter(is_retry=False, count__gt=0).count() == 3

    def signed_tokens(self) -> list[str]:
        """The tokens that were signed for the receiver, each of which is good for a minute."""
        found = [request.headers["authorization"] for request in self.receiver.requests if request.path == "/signed"]
        assert found
        return [value.removeprefix("Bearer ") for value in found]

    def uid_of(self, path: str) -> str:
        return str(WebhookTarget.objects.get(target_url__endswith=path).uid)

    def listen(self, environment: dict[str, str]) -> None:
        """Receive what has secrets in it, as a developer does who verifies it."""
        secret = f"whsec_{self.secrets[0].decode()}"
        command = [sys.executable, "-m", "django", "webhooks", "listen", "--port", "0", "--secret", "-"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{secret}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            read_processes(self.places, process.pid)
            signed = {"webhook-id": "m1", "webhook-timestamp": str(int(time.time()))}
            signed["webhook-signature"] = signing.sign(secret, "m1", int(signed["webhook-timestamp"]), b"1")
            shown = {"x-password": HEADER, "authorization": f"Bearer {BEARER}"}
            requests.post(line.split()[2].rstrip(","), b"1", headers=signed | shown, timeout=30)
            process.send_signal(signal.SIGINT)
            output = line + process.stdout.read()
        assert "signature verified" in output
        self.places.add("commands", output)

    def run_command(self, *arguments: str) -> None:
        output, errors = StringIO(), StringIO()
        call_command(*arguments, stdout=output, stderr=errors)
        self.places.add("commands", output.getvalue() + errors.getvalue())

    def canaries(self) -> list[Canary]:
        """All secrets of the run. Who adds a kind of secret adds it here, with the places where it has to be."""
        made, rotated, made_in_admin, rotated_in_admin, made_in_portal, rotated_in_portal = self.secrets
        rings = [key for target in WebhookTarget.objects.all() for key in target.keyring.keys]
        return [
            Canary("SECRET_KEY", SECRET_KEY.encode(), frozenset({"environment"})),
            Canary(
                "header",
                HEADER.encode(),
                frozenset({"receiver", "the target itself", *(f"answer to a {word}" for word in ("creation", "rotation"))}),
            ),
            Canary("password", PASSWORD.encode(), frozenset({"receiver"})),
            Canary("bearer", BEARER.encode(), frozenset({"receiver"})),
            Canary("client secret", CLIENT_SECRET.encode(), frozenset({"receiver"})),
            Canary("access token", ACCESS_TOKEN.encode(), frozenset({"receiver"})),
            Canary("key for tokens", SIGNING_KEY.encode()),
            *(Canary("signed token", token.encode(), frozenset({"receiver"})) for token in self.signed_tokens()),
            *(Canary("key of a certificate", part) for part in parts_of_key(self.certificate)),
            Canary("secret", base64.b64decode(made), frozenset({"answer to a creation"})),
            Canary("rotated secret", base64.b64decode(rotated), frozenset({"answer to a rotation"})),
            Canary("secret of the admin", base64.b64decode(made_in_admin), frozenset({"page after a creation"})),
            Canary("rotated secret of the admin", base64.b64decode(rotated_in_admin), frozenset({"page after a rotation"})),
            Canary("secret of the portal", base64.b64decode(made_in_portal), frozenset({"page after a creation"})),
            Canary("rotated secret of the portal", base64.b64decode(rotated_in_portal), frozenset({"page after a rotation"})),
            *(Canary("key pair", signing.read_pair(key.pair)[:32]) for key in rings),
            *(
                Canary("another secret", signing.key(key.secret))
                for key in rings
                if key.secret.removeprefix("whsec_").encode() not in self.secrets
            ),
        ]


def parts_of_key(pem: str) -> Iterator[bytes]:
    """The halves of the number that a private key is: however its text is broken into lines, one of them is in one piece."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    yield number[:16]
    yield number[16:]


class Unlucky(RuntimeError):
    """What a receiver of a signal raises in the middle of somebody else's work."""


@contextmanager
def failing_after(sender: type[WebhookTarget]) -> Iterator[None]:
    """Fail after a target was saved, while its secret is at hand."""

    def fail(**_: Any) -> None:
        raise Unlucky("The application's own receiver failed.")

    work_written.connect(fail, sender=sender)
    try:
        yield
    finally:
        work_written.disconnect(fail, sender=sender)


@pytest.mark.django_db(transaction=True)
def test_no_secret_is_where_it_does_not_belong(
    settings: LazySettings, redis: str, process_environment: MakeEnvironment, tmp_path: Path
) -> None:
    """Neither in a database, a Redis, a log, a page, a mail, a command's output nor a command line, however it is spelt."""
    settings.SECRET_KEY = SECRET_KEY
    settings.ADMINS = ADMINS
    settings.DJWEBHOOKS_RETRY_SCHEDULE = []
    authority = trustme.CA()
    make_environment = make_room(process_environment, authority, tmp_path)
    guarded_receiver = Receiver(script=answer, tls=make_strict_context(authority, "127.0.0.1"))
    with Receiver(script=answer) as receiver, guarded_receiver as guarded, logging_all(tmp_path / "web.log"):
        run = Run(receiver, guarded, make_certificate(authority))
        overrides = {"SECRET_KEY": SECRET_KEY, "DEBUG": True, "DJWEBHOOKS_RETRY_SCHEDULE": []}
        overrides["DJWEBHOOKS_TRANSPORT"] = "tests.transports.trusting.TrustingTransport"
        environment = make_environment(**overrides, LOGGING=log_settings(tmp_path / "worker.log"))
        run.use_api()
        run.use_admin()
        run.use_portal()
        run.fire_all()
        work(environment, run.places)
        run.replay()
        work(environment, run.places)
        settings.DJWEBHOOKS_ENGINE = overrides["DJWEBHOOKS_ENGINE"] = "djwebhooks.engines.rq.RQEngine"
        for delivery in Delivery.objects.filter(status="failed"):
            delivery.retry()
        fire("canary.fired", {"n": 2}, owner=run.owner)
        run.listen(environment)
        dump_redis(run.places, redis)
        environment = make_environment(**overrides, LOGGING=log_settings(tmp_path / "rqworker.log"))
        with rqworker(environment, tmp_path, "--burst") as process:
            read_processes(run.places, process.process.pid)
            process.wait()
        dump_redis(run.places, redis)
        run.look_at_pages()
        run.run_command("webhooks", "explain", "canary.fired")
        run.run_command("webhooks", "explain", str(Event.objects.all()[0].uid))
        run.run_command("webhooks", "explain", str(Delivery.objects.all()[0].uid))
        run.run_command("webhooks", "stats")
        run.run_command("webhooks", "reencrypt")
        run.run_command("dumpdata", "djwebhooks", "admin", "sessions")
    lose_keys(make_environment, tmp_path, run.places)
    dump_database(run.places)
    for path in (tmp_path / "temporary").rglob("*"):
        run.places.add("temporary files", path.read_bytes() if path.is_file() else str(path))
    for path in tmp_path.glob("*.log"):
        run.places.add("logs", path.read_bytes())
    for message in mail.outbox:
        run.places.add("mails", message.message().as_string())
        run.places.add("mails", str(message.body) + str(message.alternatives))
    for request in (*receiver.requests, *guarded.requests):
        run.places.add("receiver", str(request.headers))
        run.places.add("bodies", request.body)

    assert {"database", "redis", "logs", "mails", "admin", "portal", "api", "pages of errors", "commands"} <= set(
        run.places.contents
    )
    assert len(receiver.requests) >= 8
    assert guarded.requests
    canaries = run.canaries()
    assert {(canary.name, *sorted(run.places.find(canary))) for canary in canaries} == {
        (canary.name, *sorted(canary.belongs)) for canary in canaries
    }


def make_room(process_environment: MakeEnvironment, authority: trustme.CA, directory: Path) -> MakeEnvironment:
    """Return a function that makes the environment of a process with a place of its own for temporary files."""
    (directory / "temporary").mkdir()
    authority.cert_pem.write_to_path(directory / "authority.pem")
    places = {"TMPDIR": str(directory / "temporary"), "DJWEBHOOKS_TEST_AUTHORITIES": str(directory / "authority.pem")}
    return lambda **overrides: process_environment(**overrides) | places


def work(environment: dict[str, str], places: Places) -> None:
    command = [sys.executable, "-m", "django", "webhooks", "work", "--burst"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    places.add("commands", done.stdout + done.stderr)


def lose_keys(process_environment: MakeEnvironment, directory: Path, places: Places) -> None:
    """Let a worker with another SECRET_KEY find that no key opens the secrets, and say so."""
    Delivery.objects.filter(target__target_url__endswith="/good")[0].retry()
    environment = process_environment(SECRET_KEY="another" * 9, LOGGING=log_settings(directory / "without-keys.log"))
    command = [sys.executable, "-m", "django", "webhooks", "reencrypt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    places.add("commands", done.stdout + done.stderr)


# -- what reports of errors show ---------------------------------------------------------------------------------------

PACKAGE = str(Path(djwebhooks.__file__).parent)
#: Where a plain text comes in that is hidden from there on, and where it goes out to the receiver.
DOORS = {
    ("hidden.py", "value"),
    ("hidden.py", "item"),
    ("models/sealed.py", "value"),
    ("admin/target_forms.py", "value"),
    ("admin/target_forms.py", "data"),
    ("api/formats.py", "found"),
    ("transports/guarded.py", "args"),
}


class Watch:
    """Looks, at every line of ours that runs in any thread, what a report of an error at that line would show."""

    def __init__(self, *secrets: str | bytes) -> None:
        self.wanted = {repr(part)[1:-1].strip("'") for secret in secrets for part in parts_of(secret)}
        self.found: set[tuple[str, str, str]] = set()
        self.lines = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        threading.settrace(None)  # type: ignore[arg-type]  # as its documentation says

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        # A receiver, also that of the test kit, is who it is told to.
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_filename.startswith(f"{PACKAGE}/testing/"):
            return None
        self.lines += 1
        for name, value in frame.f_locals.items():
            shown = show(value)
            if any(secret in shown for secret in self.wanted):
                place = frame.f_code.co_filename.removeprefix(PACKAGE + "/")
                if (place, name) not in DOORS:
                    self.found.add((place, frame.f_code.co_name, name))
        return self.trace


def parts_of(secret: str | bytes) -> list[str | bytes]:
    """A secret as text and as bytes, without its prefix, and without what hides it."""
    plain = bytes(secret) if isinstance(secret, bytes) else "".join(secret).partition("_")[2] or "".join(secret)
    return [plain, plain.encode()] if isinstance(plain, str) else [plain]


def show(value: object) -> str:
    try:
        return repr(value)
    except (AttributeError, KeyError, RecursionError, ValueError):  # Half-made objects cannot be shown.
        return ""


AUTHENTICATIONS = [
    {"type": "basic", "username": "djwebhooks", "password": PASSWORD},
    {"type": "bearer", "token": "canary-of-a-token-5e7b"},
    {"type": "jwt", "key": "canary of a key of at least 32 bytes", "algorithm": "HS256"},
    {"type": "oauth2", "token_url": "/token", "client_id": "djwebhooks", "client_secret": CLIENT_SECRET},
]


@pytest.mark.django_db
@pytest.mark.parametrize("authentication", AUTHENTICATIONS, ids=lambda told: told["type"])
def test_no_variable_shows_a_secret(settings: LazySettings, authentication: dict[str, str]) -> None:
    """No tool that shows the variables of a traceback can show one, though it has never heard of ``sensitive_variables``."""
    settings.SECRET_KEY = SECRET_KEY
    encryption.cipher.cache_clear()
    owner = User.objects.create_superuser("canary")
    client = Client()
    client.force_login(owner)
    with Receiver(script=answer) as receiver:
        target = WebhookTarget.objects.register(receiver.url, ["*"], owner=owner)
        ring = target.keyring.newest
        known = (ring.secret, ring.pair, signing.key(ring.secret), signing.read_pair(ring.pair)[:32])
        if "token_url" in authentication:
            authentication = authentication | {"token_url": receiver.url.replace("/hook", "/token")}
        told = [value for name, value in authentication.items() if name in ("password", "token", "key", "client_secret")]
        with Watch(SECRET_KEY, HEADER, ACCESS_TOKEN, *told, *known) as watch:
            target.headers, target.authentication, target.signatures = {"x-password": HEADER}, authentication, "v1 v1a"
            target.full_clean(exclude=["digest"])
            target.save()
            fire("canary.fired", {"n": 1}, owner=owner)
            Worker(burst=True, threaded=False).run()
            [request] = [request for request in receiver.requests if request.path == "/hook"]
            headers = {name: value for name, value in request.headers.items() if name.startswith("webhook-")}
            assert signing.verify(request.body, headers, [ring.secret, ring.public_key]) == 0
            target.rotate_secret()
            body = {"target_url": f"{receiver.url}/2", "events": ["*"], "headers": {"x-password": HEADER}}
            made = client.post("/api/targets/", body, content_type=CODED)
            form = {"headers": f'{{"x-password": "{HEADER}"}}', "target_url": f"{receiver.url}/3", "owner": str(owner.pk)}
            rows = {"subscriptions-TOTAL_FORMS": "0", "subscriptions-INITIAL_FORMS": "0", "rate_period": "second"}
            page = client.post("/admin/djwebhooks/webhooktarget/add/", form | rows)
            added = client.post("/portal/", {"url": f"{receiver.url}/4", "events": "*"})
            turned = client.post(f"/portal/targets/{target.uid}/rotate-secret/")
            call_command("webhooks", "reencrypt", stdout=StringIO())

    assert (made.status_code, page.status_code, added.status_code, turned.status_code) == (201, 200, 201, 200)
    assert WebhookTarget.objects.count() == 4
    assert watch.lines > 1000
    assert sorted(watch.found) == []


def test_the_watch_sees() -> None:
    """A secret that nobody hides is seen in the very functions that are given hidden ones."""
    secret = signing.new_secret()
    plain = "".join(list(secret))

    with Watch(secret) as watch:
        signing.sign(plain, "id", 1, b"")

    assert ("signing.py", "sign", "secret") in watch.found


def test_hidden_texts_are_texts() -> None:
    """They work wherever texts do, and say what they are to whoever asks for it."""
    text = hide({"a": ["secret", b"secret", 5]})

    assert text == {"a": ["secret", b"secret", 5]}
    assert repr(text) == "{'a': ['…', b'…', 5]}"
    assert json.dumps(text["a"][0]) == '"secret"'
    assert f"{text['a'][0]}" == "secret"
    assert repr(str(text["a"][0])) == repr(pickle.loads(pickle.dumps(text["a"][0]))) == "'…'"


# -- what the other tests show -----------------------------------------------------------------------------------------


def test_every_test_is_watched() -> None:
    """A test that logs or prints a secret fails at its end, and one that does not passes."""
    command = [sys.executable, "-m", "pytest", "-rN", "-p", "no:cacheprovider", str(Path(__file__).parent / "leaky.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert "15 passed, 14 errors" in done.stdout
    assert done.stdout.count("It has logged or printed what is secret") == 14
