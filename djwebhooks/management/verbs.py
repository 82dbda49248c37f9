"""What the command ``webhooks`` is made of, whichever apps bring verbs for it."""

import signal
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeAlias

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

Options: TypeAlias = dict[str, Any]


class VerbCommand(BaseCommand):
    """A command with verbs: each parses, calls one function, and shows what it returns."""

    def add_arguments(self, parser: CommandParser) -> None:
        self.verbs = parser.add_subparsers(title="verbs", metavar="VERB")

    def add_verb(self, run: Callable[[Options], None], summary: str, *, has_database: bool = True) -> CommandParser:
        parser: CommandParser = self.verbs.add_parser(run.__name__, help=summary, description=summary)
        parser.set_defaults(run=run)
        if has_database:
            told = "Work on this database, not on the one that the routers choose."
            parser.add_argument("--database", metavar="ALIAS", choices=list(connections), help=told)
        return parser

    def handle(self, *args: object, **options: Any) -> None:
        run: Callable[[Options], None] | None = options.get("run")
        if run is None:
            verbs = ", ".join(self.verbs.choices)
            raise CommandError(f"Say what to do: {verbs}. Each is explained by manage.py webhooks VERB --help.")
        run(options)

    def say(self, line: str) -> None:
        """Write a line at once: a log or a pipe may be watching."""
        self.stdout.write(line)
        self.stdout.flush()

    def say_all(self, lines: Iterable[str]) -> None:
        """Write lines; those that begin with an exclamation mark are warnings."""
        for line in lines:
            self.say(self.style.WARNING(line) if line.startswith("!") else line)

    def log(self, line: str, options: Options) -> None:
        """Write a line, unless silence was asked for."""
        if options["verbosity"]:
            self.say(line)


def read_days(text: str) -> timedelta:
    try:
        days = timedelta(days=float(text))
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{text!r} is not a number of days.") from error
    if not timedelta() <= days < timedelta(days=365_000):
        raise ArgumentTypeError(f"{text!r} is not a possible number of days.")
    return days


@contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Call *stop* at the first SIGTERM or SIGINT; a second one does what it always did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop_once(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    for number in previous:
        signal.signal(number, stop_once)
    try:
        yield
    finally:
        restore()
