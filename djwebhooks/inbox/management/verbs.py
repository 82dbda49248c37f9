"""What the command ``webhooks`` does for the inbox, with the sender's verbs or without."""

import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.inbox.erasure import erase_messages
from djwebhooks.inbox.feed import fetch_missing, list_feeds
from djwebhooks.inbox.gaps import Gap, find_gaps
from djwebhooks.inbox.models import inbox_database
from djwebhooks.inbox.prune import prune
from djwebhooks.inbox.stats import InboxStats, collect, report
from djwebhooks.inbox.worker import InboxWorker, working_beside
from djwebhooks.management.verbs import Options, VerbCommand, read_days, stopping
from djwebhooks.words import describe_count


class InboxVerbs:
    """Adds its verbs to a command: each parses, calls one function, and shows what it returns."""

    def __init__(self, command: VerbCommand) -> None:
        self.command = command

    def add_inbox(self) -> None:
        parser = self.command.add_verb(self.inbox, "Run the handlers of webhooks that were received, until SIGTERM or Ctrl-C.")
        parser.add_argument("--burst", action="store_true", help="End when nothing is due any more.")
        parser.add_argument("--gaps", action="store_true", help="Only list the numbers that are missing.")
        parser.add_argument("--fetch", action="store_true", help="Only ask the senders' feeds for what is missing, and store it.")
        parser.add_argument("--after", metavar="N", type=read_number, help="With --fetch: ask for all that came after number N.")
        parser.add_argument(
            "--source", metavar="NAME", action="append", default=[], help="Only of this source; repeatable (default: all)."
        )

    def inbox(self, options: Options) -> None:
        check_names(options["source"])
        if options["gaps"]:
            self.show_gaps(options)
            return
        if options["fetch"] or options["after"] is not None:
            self.fetch(options)
            return
        alias = alias_of(options)
        worker = InboxWorker(using=alias, burst=options["burst"], sources=options["source"])
        until = "until nothing is due" if options["burst"] else "until SIGTERM or Ctrl-C"
        self.command.log(f"Working on the inbox in database {alias!r}, {until}.", options)
        with stopping(worker.stop):
            count = worker.run()
        self.command.log(f"Ended, with {describe(count)} worked on.", options)

    def show_gaps(self, options: Options) -> None:
        gaps = [gap for source in options["source"] or [None] for gap in find_gaps(source, using=alias_of(options))]
        for gap in gaps:
            self.show_gap(gap)
        if not gaps:
            self.command.say("No number is missing.")

    def show_gap(self, gap: Gap) -> None:
        self.command.say(f"{gap.source}: {gap} missing, noticed {gap.noticed_at:%Y-%m-%d %H:%M:%S} UTC")

    def fetch(self, options: Options) -> None:
        names = options["source"] or list_feeds()
        if options["after"] is not None and not (options["fetch"] and len(options["source"]) == 1):
            raise CommandError("--after goes with --fetch and one --source: each source has numbers of its own.")
        if not names:
            raise CommandError("No source of DJWEBHOOKS_INBOX has a 'feed_url' to ask at.")
        try:
            results = [fetch_missing(name, after=options["after"], using=alias_of(options)) for name in names]
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        for fetched in results:
            for line in fetched.describe():
                self.command.say(f"{fetched.source}: {line}")
            for gap in fetched.missing:
                self.show_gap(gap)
        if failed := [fetched.source for fetched in results if fetched.error]:
            raise CommandError(f"Not everything could be asked for of {', '.join(failed)}.")

    def add_prune(self) -> None:
        parser = self.command.add_verb(self.prune, "Delete messages that were received before the retention.")
        parser.add_argument(
            "--older-than", metavar="DAYS", type=read_days, help="At least so old (default: DJWEBHOOKS_RETENTION)."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how much would be deleted.")

    def prune(self, options: Options) -> None:
        count = prune(older_than=options["older_than"], dry_run=options["dry_run"], using=alias_of(options))
        self.command.say(f"{'Would delete' if options['dry_run'] else 'Deleted'} {describe(count)} from the inbox.")

    def add_erase(self) -> None:
        parser = self.command.add_verb(self.erase, "Erase what messages said of somebody.")
        parser.add_argument("--dry-run", action="store_true", help="Only say how much would be erased.")
        self.add_saying(parser, required=True)

    def add_saying(self, parser: CommandParser, *, required: bool = False) -> None:
        parser.add_argument("--saying", metavar="TEXT", required=required, help="Messages of the inbox that say this anywhere.")

    def erase(self, options: Options) -> None:
        try:
            count = erase_messages(options["saying"], dry_run=options["dry_run"], using=alias_of(options))
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.command.say(f"{'Would erase' if options['dry_run'] else 'Erased'} {describe(count)} of the inbox.")

    def add_stats(self) -> None:
        parser = self.command.add_verb(self.stats, "Count what waits for handlers and what failed lately.")
        parser.add_argument(
            "--format", choices=["text", "json"], default="text", help="How to write the numbers (default: text)."
        )

    def stats(self, options: Options) -> None:
        stats = self.collect(options)
        self.command.say_all([json.dumps(stats.as_dict(), indent=2)] if options["format"] == "json" else report(stats))

    def collect(self, options: Options) -> InboxStats:
        return collect(using=alias_of(options))

    @contextmanager
    def working_beside(self, options: Options) -> Iterator[Callable[[], None]]:
        """Run handlers in a thread during the block; yields what stops them."""
        worker = InboxWorker(using=alias_of(options), burst=options["burst"])
        with working_beside(worker):
            yield worker.stop


def check_names(sources: Sequence[str]) -> None:
    """Raise CommandError for a source that there is not. Not as the parser's choices: the system checks come only after it."""
    for name in sources:
        if name not in conf.INBOX:
            raise CommandError(f"DJWEBHOOKS_INBOX has no source {name!r}, but {', '.join(conf.INBOX) or 'none at all'}.")


def read_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ArgumentTypeError(f"{text!r} is no number of a message: write 0 or more, as in --after 17.")
    return int(text)


def alias_of(options: Options) -> str:
    return options["database"] or inbox_database()


def describe(count: int) -> str:
    return describe_count(count, "message")
