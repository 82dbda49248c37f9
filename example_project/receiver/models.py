"""What arrived, and the secrets that it must be signed with."""

import json

from django.core.exceptions import ValidationError
from django.db import models

from djwebhooks import signing


def check_secret(secret: str) -> None:
    """Raise ``ValidationError`` for what cannot be a signing secret."""
    try:
        signing.read_verifier(secret)
    except ValueError as error:
        raise ValidationError(str(error)) from error


class Secret(models.Model):
    """A secret that the sender gave out. It is kept as it is: fit for a play on your own machine, not for production."""

    text = models.CharField("secret", max_length=120, unique=True, validators=[check_secret])
    added_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"secret {self.pk}"


class Arrival(models.Model):
    """One POST as it arrived."""

    arrived_at = models.DateTimeField(auto_now_add=True)
    message_id = models.CharField(max_length=255, blank=True)
    attempt = models.CharField(max_length=20, blank=True)
    sequence = models.CharField(max_length=20, blank=True)
    is_verified = models.BooleanField(default=False)
    is_repeat = models.BooleanField(default=False)
    reason = models.TextField(blank=True, help_text="Why it was refused.")
    body = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.message_id or f"arrival {self.pk}"

    @property
    def content(self) -> object:
        """The parsed body, or ``None`` when it is not JSON."""
        try:
            parsed: object = json.loads(self.body)
        except ValueError:
            return None
        return parsed

    @property
    def event(self) -> str:
        """The event's name, as far as the body has one."""
        return str(self.content.get("type", "")) if isinstance(self.content, dict) else ""

    @property
    def pretty_body(self) -> str:
        """The body, laid out for people if it is JSON."""
        return self.body if self.content is None else json.dumps(self.content, indent=2, ensure_ascii=False)
