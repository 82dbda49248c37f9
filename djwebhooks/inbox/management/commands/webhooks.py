"""``manage.py webhooks`` with the inbox's verbs alone; where the sender is installed, its command, which has them too."""

from django.apps import apps
from django.core.management.base import CommandParser
from django.utils.module_loading import import_string

from djwebhooks.inbox.management.verbs import InboxVerbs
from djwebhooks.management.verbs import VerbCommand

SENDERS = "djwebhooks.management.commands.webhooks.Command"


class InboxCommand(VerbCommand):
    """The inbox's verbs."""

    help = "Run the handlers of webhooks that were received, and clean up."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        inbox = InboxVerbs(self)
        inbox.add_inbox()
        inbox.add_prune()
        inbox.add_erase()
        inbox.add_stats()


# Django takes the command of whichever app is installed first.
Command: type[VerbCommand] = import_string(SENDERS) if apps.is_installed("djwebhooks") else InboxCommand
