"""What visitors leave, and who keeps the guestbook."""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import models


class Comment(models.Model):
    """A name and a few kind words."""

    name = models.CharField("your name", max_length=80)
    message = models.TextField("your comment", max_length=2000)
    left_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name}: {self.message[:40]}"


def find_keeper() -> AbstractBaseUser | None:
    """Whose guestbook this is: the first superuser's. The webhooks about its comments are theirs."""
    return get_user_model().objects.filter(is_superuser=True).order_by("pk").first()
