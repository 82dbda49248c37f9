"""``manage.py webhooks``: one command, a verb for each thing that is done by hand or by a service manager."""

import gc
import getpass
import json
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db.models import Model
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from djwebhooks.adoption import PACKAGES, SYSTEM, OwnerOf, adopt
from djwebhooks.erasure import erase
from djwebhooks.exceptions import AlreadyFinished, ConfigurationError, InvalidAdoption, InvalidEvent, InvalidReplay
from djwebhooks.explain import ANYONE, Explanation, explain_name, explain_uid
from djwebhooks.hidden import HiddenText
from djwebhooks.management.adoption import describe_adopted
from djwebhooks.management.catalogue import FORMS, describe_catalogue
from djwebhooks.management.listen import DevelopmentReceiver
from djwebhooks.management.reencrypt import reencrypt_secrets
from djwebhooks.management.report import report
from djwebhooks.management.verbs import Options, VerbCommand, read_days, stopping
from djwebhooks.models import Delivery, Replay, WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.models.replays import REPLAYABLE, Criteria, Plan, Through, make_criteria
from djwebhooks.owners import owner_model
from djwebhooks.prune import prune
from djwebhooks.stats import collect
from djwebhooks.words import describe_count
from djwebhooks.worker import Worker

#: How many more objects than before there are when Python looks for garbage in cycles.
COLLECT_AFTER = 20_000
#: What the inbox adds to this command.
INBOX_VERBS = "djwebhooks.inbox.management.verbs.InboxVerbs"


class Command(VerbCommand):
    """The sender's verbs, and those of the inbox where it is installed."""

    help = "Send webhooks, explain and count them, try them again, and clean up."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        # An app of its own, which may be there or not.
        self.inbox = import_string(INBOX_VERBS)(self) if apps.is_installed("djwebhooks.inbox") else None
        self.add_work()
        self.add_replay()
        self.add_prune()
        self.add_erase()
        self.add_events()
        self.add_explain()
        self.add_stats()
        self.add_listen()
        self.add_reencrypt()
        self.add_adopt()
        if self.inbox is not None:
            self.inbox.add_inbox()

    # -- work -----------------------------------------------------------------------------------------------------------

    def add_work(self) -> None:
        parser = self.add_verb(self.work, "Send what is due, without a broker, until SIGTERM or Ctrl-C.")
        parser.add_argument("--burst", action="store_true", help="End when nothing is due any more.")
        parser.add_argument("--target", metavar="UID", action="append", default=[], help="Send to this target only; repeatable.")
        parser.add_argument(
            "--concurrency", metavar="N", type=read_count, help="Requests in flight at most (default: DJWEBHOOKS_CONCURRENCY)."
        )

    def work(self, options: Options) -> None:
        alias = alias_of(options)
        target_ids = [find_target(alias, text).pk for text in options["target"]] or None
        worker = Worker(using=alias, concurrency=options["concurrency"], burst=options["burst"], targets=target_ids)
        requests = describe_count(worker.transport.concurrency, "request") + " at a time"
        until = "until nothing is due" if options["burst"] else "until SIGTERM or Ctrl-C"
        self.log(f"Working on database {alias!r}, {requests}, {until}.", options)
        with self.beside(options) as stop_inbox:

            def stop() -> None:
                worker.stop()
                stop_inbox()

            with stopping(stop), collecting_seldom():
                recorded = worker.run()
        self.log(f"Ended, with {describe_count(recorded, 'result')} recorded.", options)

    def beside(self, options: Options) -> AbstractContextManager[Callable[[], None]]:
        """Run the inbox's handlers meanwhile, if there is an inbox and all of the work is to be done."""
        if self.inbox is None or options["target"]:
            return nullcontext(lambda: None)
        beside: AbstractContextManager[Callable[[], None]] = self.inbox.working_beside(options)
        return beside

    # -- replay ---------------------------------------------------------------------------------------------------------

    def add_replay(self) -> None:
        parser = self.add_verb(self.replay, "Have deliveries sent again that have ended, or cancel that.")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--target", metavar="UID", action="append", help="To this target; repeatable.")
        what.add_argument("--owner", metavar="PK", help="To all targets of this owner.")
        what.add_argument("--all", action="store_true", dest="everybody", help="To everybody's targets.")
        what.add_argument("--cancel", metavar="UID", help="Send no more of this replay.")
        parser.add_argument("--since", metavar="TIME", type=read_time, help="Only deliveries made at this time or later.")
        parser.add_argument("--until", metavar="TIME", type=read_time, help="Only deliveries made before this time.")
        parser.add_argument("--event", metavar="NAME", default="", help="Only of this event: a name, a pattern or a uid.")
        parser.add_argument("--status", choices=REPLAYABLE, action="append", help="How they ended; repeatable (default: failed).")
        parser.add_argument("--rate", metavar="N", type=float, help="Deliveries per second (default: DJWEBHOOKS_REPLAY_RATE).")
        parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")

    def replay(self, options: Options) -> None:
        if options["cancel"] is not None:
            self.cancel_replay(alias_of(options), options["cancel"])
            return
        deliveries = Delivery.objects.db_manager(alias_of(options))
        rate, is_dry = options["rate"], options["dry_run"]
        try:
            criteria = make_criteria(**read_criteria(options))
            plan = deliveries.plan(criteria)
            replay = (
                None if is_dry else deliveries.replay(criteria, rate=rate, by=name_user(), through=Through.COMMAND, plan=plan)
            )
        except InvalidReplay as error:
            raise CommandError(str(error)) from error
        for line in describe_plan(criteria, plan, is_dry=is_dry):
            self.say(line)
        if replay is not None:
            self.say(f"Replay {replay.uid}, {replay.rate:g} a second: workers send them.")

    def cancel_replay(self, alias: str, text: str) -> None:
        uid = read_uid(text)
        replay = Replay.objects.using(alias).filter(uid=uid).first() if uid is not None else None
        if replay is None:
            raise CommandError(f"There is no replay with the uid {text!r} in database {alias!r}: the admin lists them.")
        try:
            replay.cancel(by=name_user())
        except AlreadyFinished as error:
            raise CommandError(str(error)) from error
        self.say(f"Cancelled: {replay.reopened_count} of {replay.count} had been made pending; what is not sent is as before.")

    # -- prune ----------------------------------------------------------------------------------------------------------

    def add_prune(self) -> None:
        parser = self.add_verb(
            self.prune, "Delete finished deliveries, and then their events, that are older than the retention."
        )
        parser.add_argument(
            "--older-than", metavar="DAYS", type=read_days, help="At least so old (default: DJWEBHOOKS_RETENTION)."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how much would be deleted.")

    def prune(self, options: Options) -> None:
        pruned = prune(older_than=options["older_than"], dry_run=options["dry_run"], using=alias_of(options))
        counts = [
            describe_count(pruned.events, "event"),
            describe_count(pruned.bodies, "body", "bodies"),
            describe_count(pruned.deliveries, "delivery", "deliveries"),
            describe_count(pruned.attempts, "attempt"),
        ]
        self.say(f"{'Would delete' if options['dry_run'] else 'Deleted'} {', '.join(counts)}.")
        if pruned.targets:
            made = describe_count(pruned.targets, "target")
            self.say(f"{made} that fire(urls=…) made and nothing is left of: {'would be ' if options['dry_run'] else ''}deleted.")
        if pruned.cancelled:
            self.say(f"{describe_count(pruned.cancelled, 'delivery', 'deliveries')} of deleted targets: cancelled.")
        if self.inbox is not None:
            self.inbox.prune(options)

    # -- erase ----------------------------------------------------------------------------------------------------------

    def add_erase(self) -> None:
        parser = self.add_verb(self.erase, "Erase what events said of a row, or of an owner, and what was answered.")
        parser.add_argument("model", metavar="APP.MODEL", nargs="?", help="The row's model, such as auth.user.")
        parser.add_argument("pk", metavar="PK", nargs="?", help="Its primary key; the row may be deleted already.")
        parser.add_argument("--dry-run", action="store_true", help="Only say how much would be erased.")
        if self.inbox is not None:
            self.inbox.add_saying(parser)

    def erase(self, options: Options) -> None:
        has_text = options.get("saying") is not None
        if options["pk"] is None and (options["model"] is not None or not has_text):
            raise CommandError("Say whose data is erased: APP.MODEL and PK, such as auth.user 5.")
        if options["pk"] is not None:
            self.erase_row(options)
        if self.inbox is not None and has_text:
            self.inbox.erase(options)

    def erase_row(self, options: Options) -> None:
        erased = erase(read_row(options["model"], options["pk"]), dry_run=options["dry_run"], using=alias_of(options))
        events, attempts = describe_count(erased.events, "event"), describe_count(erased.attempts, "attempt")
        self.say(f"{'Would erase' if options['dry_run'] else 'Erased'} the payloads of {events} and the answers to {attempts}.")
        if erased.cancelled:
            waiting = describe_count(erased.cancelled, "delivery", "deliveries")
            self.say(f"{'Would cancel' if options['dry_run'] else 'Cancelled'} {waiting} that waited.")

    # -- explain --------------------------------------------------------------------------------------------------------

    def add_explain(self) -> None:
        parser = self.add_verb(self.explain, "Say who gets an event, who does not and why, and why a delivery waits.")
        parser.add_argument("what", metavar="WHAT", help="The name of an event, or the uid of an event or of a delivery.")
        parser.add_argument("--owner", metavar="PK", help="With a name: of an event of this owner; 'none' for one without.")
        parser.add_argument("--identifier", metavar="X", default="", help="With --owner: of an event with this identifier.")

    def explain(self, options: Options) -> None:
        uid = read_uid(options["what"])
        self.show(explain_one(uid, options) if uid is not None else explain_what(options))

    def show(self, explanation: Explanation) -> None:
        self.say(self.style.MIGRATE_HEADING(explanation.title))
        for section in explanation.sections:
            self.say(self.style.MIGRATE_LABEL(section.heading))
            for line in "\n".join(section.lines).splitlines():
                self.say(f"  {line}")

    # -- events ---------------------------------------------------------------------------------------------------------

    def add_events(self) -> None:
        parser = self.add_verb(self.events, "Show the catalogue of events.", has_database=False)
        parser.add_argument(
            "--format",
            choices=FORMS,
            default="text",
            help="How to write it (default: text); openapi is a document of webhooks (3.1).",
        )
        parser.add_argument("--internal", action="store_true", help="Show also those that owners do not know of.")

    def events(self, options: Options) -> None:
        try:
            self.say(describe_catalogue(options["format"], with_internal=options["internal"]))
        except InvalidEvent as error:
            raise CommandError(str(error)) from error

    # -- stats ----------------------------------------------------------------------------------------------------------

    def add_stats(self) -> None:
        parser = self.add_verb(self.stats, "Count what waits, what fails and who works, and say what is missing.")
        parser.add_argument(
            "--format", choices=["text", "json"], default="text", help="How to write the numbers (default: text)."
        )

    def stats(self, options: Options) -> None:
        stats = collect(using=alias_of(options))
        if options["format"] == "json":
            inbox = {"inbox": self.inbox.collect(options).as_dict()} if self.inbox is not None else {}
            self.say(json.dumps(stats.as_dict() | inbox, indent=2))
            return
        self.say_all(report(stats))
        if self.inbox is not None:
            self.inbox.stats(options)

    # -- listen ---------------------------------------------------------------------------------------------------------

    def add_listen(self) -> None:
        summary = "Receive webhooks on this machine, show them and verify their signatures, until Ctrl-C."
        parser = self.add_verb(self.listen, summary, has_database=False)
        parser.add_argument("--port", type=read_port, default=9000, help="Where to listen; 0 is any free port (default: 9000).")
        parser.add_argument("--secret", metavar="whsec_…|whpk_…|-", action="append", default=[], help=LISTEN_SECRET)
        parser.add_argument("--status", type=read_status, default=200, help="The HTTP status to answer with (default: 200).")

    def listen(self, options: Options) -> None:
        try:
            secrets = [read_secret(text) for text in options["secret"]]
            listener = DevelopmentReceiver(self.say, port=options["port"], status=options["status"], secrets=secrets)
        except OSError as error:
            raise CommandError(f"Port {options['port']} cannot be had ({error}): choose another with --port.") from error
        except ValueError as error:
            # Not chained: a traceback must not show a secret.
            raise CommandError(f"--secret cannot be used: {error}") from None
        with listener, stopping(lambda: threading.Thread(target=listener.shutdown).start()):
            self.say(f"Listening on {listener.url}, answering {options['status']}; Ctrl-C ends.")
            listener.serve_forever()

    # -- reencrypt ------------------------------------------------------------------------------------------------------

    def add_reencrypt(self) -> None:
        self.add_verb(self.reencrypt, "Encrypt the targets' secrets with the newest key of DJWEBHOOKS_ENCRYPTION_KEYS.")

    def reencrypt(self, options: Options) -> None:
        try:
            result = reencrypt_secrets(using=alias_of(options))
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        self.say(f"The secrets of {describe_count(result.count, 'target')} are encrypted with the newest key.")
        if result.unreadable:
            raise CommandError(
                f"No key opens the secrets of {describe_count(len(result.unreadable), 'target')}: "
                f"{', '.join(str(uid) for uid in result.unreadable[:20])}. Add the key that they were encrypted with to the end "
                "of DJWEBHOOKS_ENCRYPTION_KEYS and run this again, or delete these targets and make them anew."
            )

    # -- adopt ----------------------------------------------------------------------------------------------------------

    def add_adopt(self) -> None:
        parser = self.add_verb(self.adopt, "Make targets of the endpoints that another package has in its tables.")
        parser.add_argument("package", metavar="PACKAGE", choices=list(PACKAGES), help=f"One of {', '.join(PACKAGES)}.")
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--owner", metavar="PK", help="All become this owner's; 'none' for the system's own.")
        whose.add_argument("--owner-by", metavar="PATH", type=read_function, help="A function of a row, which returns its owner.")
        parser.add_argument(
            "--rename", metavar="OLD=NEW", type=read_renaming, action="append", default=[], help="Call an event so; repeatable."
        )
        parser.add_argument(
            "--table", metavar="NAME", default="", help="Where the endpoints are (default: the package's own table)."
        )
        parser.add_argument("--sender", metavar="NAME", default="", help="The targets' sender, one of DJWEBHOOKS_SENDERS.")
        parser.add_argument("--subscribe", action="store_true", help="Give targets that are there already the events they lack.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be made.")

    def adopt(self, options: Options) -> None:
        try:
            adopted = adopt(
                options["package"],
                owner_of=choose_owner(options),
                renamed=dict(options["rename"]),
                table=options["table"],
                sender=options["sender"],
                subscribe=options["subscribe"],
                dry_run=options["dry_run"],
                using=alias_of(options),
            )
        except InvalidAdoption as error:
            raise CommandError(str(error)) from error
        for line in describe_adopted(adopted, is_dry=options["dry_run"]):
            self.say(line)


# -- reading options ---------------------------------------------------------------------------------------------------


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Have Python look for garbage in cycles less often: a worker makes thousands of objects a turn, and hardly any cycle."""
    before = gc.get_threshold()
    if before[0]:  # 0 stands for never.
        gc.set_threshold(max(COLLECT_AFTER, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def read_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number above 0.")
    return int(text)


def read_port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: use a number from 0 to 65535.")
    return int(text)


def read_status(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 200 <= int(text) <= 599:
        raise ArgumentTypeError(f"{text!r} is not a final HTTP status: use a number from 200 to 599.")
    return int(text)


def read_time(text: str) -> datetime:
    """Read a date or a time in ISO 8601, in the current time zone unless it says another."""
    try:
        time = parse_datetime(text)
        date = parse_date(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a possible time: {error}.") from error
    if time is None and date is not None:
        time = datetime.combine(date, datetime.min.time())
    if time is None:
        raise ArgumentTypeError(f"{text!r} is not a time: write 2026-09-21, 2026-09-21T14:00 or 2026-09-21T14:00+02:00.")
    return time if timezone.is_aware(time) else timezone.make_aware(time)


def read_uid(text: str) -> UUID | None:
    """Return the uid that *text* is; None for an event's name, which has no hyphens."""
    try:
        return UUID(text) if "-" in text else None
    except ValueError as error:
        raise CommandError(f"{text!r} is neither the name of an event nor a uid.") from error


def read_row(label: str, text: str) -> Model:
    """Return an instance of the model *label* with the primary key *text*; nobody looks for its row. Raises ``CommandError``."""
    try:
        model = apps.get_model(label)
        row: Model = model(pk=model._meta.pk.clean(text, None))
    except (LookupError, ValueError) as error:
        why = f": {error}" if isinstance(error, LookupError) else "."  # Of a word without a dot, Django says how it failed.
        raise CommandError(f"{label!r} is no model{why} Write app_label.ModelName, such as auth.User.") from error
    except ValidationError as error:
        raise CommandError(f"{text!r} cannot be the primary key of {label}: {error.messages[0]}") from error
    return row


LISTEN_SECRET = "To verify with; repeatable. With - it is asked for, or read from the input: no other process sees it then."


@sensitive_variables()
def read_secret(text: str) -> str:
    """Return *text*; for ``-``, what is typed at the terminal without being shown, or else the next line of the input."""
    if text == "-":
        text = getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    return HiddenText(text)


def alias_of(options: Options) -> str:
    return options["database"] or events_database()


def find_target(alias: str, text: str) -> WebhookTarget:
    """Return the target with this uid. Raises ``CommandError``."""
    uid = read_uid(text)
    target = WebhookTarget.objects.using(alias).filter(uid=uid).first() if uid is not None else None
    if target is None:
        raise CommandError(
            f"There is no target with the uid {text!r} in database {alias!r}: webhooks explain and the admin show uids."
        )
    return target


# -- replaying ---------------------------------------------------------------------------------------------------------


def read_criteria(options: Options) -> dict[str, Any]:
    """Return what ``make_criteria`` takes. Raises ``CommandError``."""
    alias = alias_of(options)
    which = {name: options[name] for name in ("everybody", "since", "until", "event")} | {"status": options["status"] or "failed"}
    if options["target"] is not None:
        return which | {"targets": [find_target(alias, text) for text in options["target"]]}
    if options["owner"] is not None:
        pk = read_owner(alias, options["owner"])
        if pk is None:
            raise CommandError("--owner none: name the system's targets with --target, or use --all.")
        return which | {"owner": apps.get_model(owner_model())._base_manager.using(alias).get(pk=pk)}
    return which


def describe_plan(criteria: Criteria, plan: Plan, *, is_dry: bool) -> Iterator[str]:
    """Say how many deliveries are replayed, and how many are not, and why."""
    yield f"{plan.count} {'would' if is_dry else 'will'} be sent again: {criteria.describe()}."
    if plan.expired:
        yield f"Left out: {plan.expired} whose events have expired; --status expired takes them, too."
    if plan.erased:
        yield f"Left out: {plan.erased} whose events' data was erased."
    if plan.gone:
        yield f"Left out: {plan.gone} whose target or event was deleted."


def name_user() -> str:
    """Return who runs the command, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


# -- adopting ----------------------------------------------------------------------------------------------------------


def read_function(path: str) -> OwnerOf:
    try:
        function: OwnerOf = import_string(path)
    except ImportError as error:
        raise ArgumentTypeError(f"{path!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ArgumentTypeError(f"{path!r} is no function.")
    return function


def read_renaming(text: str) -> tuple[str, str]:
    old, separator, new = text.rpartition("=")
    if not separator:
        raise ArgumentTypeError(f"{text!r} has no =: write the event's old name, =, and its new one.")
    return old, new


def choose_owner(options: Options) -> OwnerOf | None:
    """Return what says whose a row's target becomes; None for the row's own user. Raises ``CommandError``."""
    if options["owner"] is None:
        by: OwnerOf | None = options["owner_by"]
        return by
    pk = read_owner(alias_of(options), options["owner"])
    owner = SYSTEM if pk is None else apps.get_model(owner_model())._base_manager.using(alias_of(options)).get(pk=pk)
    return lambda row: owner


# -- explaining --------------------------------------------------------------------------------------------------------


def explain_one(uid: UUID, options: Options) -> Explanation:
    """Explain the event or delivery with this uid. Raises ``CommandError``."""
    alias = alias_of(options)
    if options["owner"] is not None or options["identifier"]:
        raise CommandError("--owner and --identifier go with the name of an event; what has a uid has its own.")
    explanation = explain_uid(uid, using=alias)
    if explanation is None:
        raise CommandError(
            f"No event and no delivery in database {alias!r} has the uid {uid}: its transaction did not commit, or it was "
            "pruned, or it is in another database (--database)."
        )
    return explanation


def explain_what(options: Options) -> Explanation:
    """Explain the event with this name. Raises ``CommandError``."""
    if options["identifier"] and options["owner"] is None:
        raise CommandError("--identifier needs --owner: say whose event it is, or --owner none.")
    owner_pk = ANYONE if options["owner"] is None else read_owner(alias_of(options), options["owner"])
    try:
        return explain_name(options["what"], owner_pk=owner_pk, identifier=options["identifier"], using=alias_of(options))
    except InvalidEvent as error:
        raise CommandError(str(error)) from error


def read_owner(alias: str, text: str) -> Any:
    """Return the primary key of the owner that *text* names, None for ``none``. Raises ``CommandError``."""
    if text == "none":
        return None
    model = apps.get_model(owner_model())
    try:
        pk = model._meta.pk.clean(text, None)
    except ValidationError as error:
        raise CommandError(f"--owner {text!r} cannot be the primary key of {owner_model()}: {error.messages[0]}") from error
    if not model._base_manager.using(alias).filter(pk=pk).exists():
        raise CommandError(f"--owner {text!r}: there is no {owner_model()} with this primary key.")
    return pk
