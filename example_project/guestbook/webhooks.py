"""What the guestbook tells the world."""

from datetime import datetime
from typing import TypedDict

from django.contrib.auth.models import AbstractBaseUser

from djwebhooks.decorators import hook
from example_project.guestbook.models import Comment


class CommentPayload(TypedDict):
    id: int
    name: str
    message: str
    left_at: datetime


@hook(event="guestbook.comment.created")
def comment_created(comment: Comment, owner: AbstractBaseUser | None) -> CommentPayload:
    """Tell *owner*'s webhooks of a new comment, with all that the usual reader needs, so that nobody has to ask again."""
    return {"id": comment.pk, "name": comment.name, "message": comment.message, "left_at": comment.left_at}
