"""What is done with messages, in a worker: ``manage.py webhooks inbox``."""

from djwebhooks.inbox.handlers import receive
from djwebhooks.inbox.models import Message
from example_project.receiver.models import Printed


@receive("guestbook", event="guestbook.comment.created")
def print_comment(message: Message) -> None:
    """Print a comment, once: what is written here is kept together with the message's status, or not at all."""
    comment = message.json()["data"]
    Printed.objects.create(
        message_id=message.message_id, name=comment["name"], text=comment["message"], left_at=comment["left_at"]
    )
