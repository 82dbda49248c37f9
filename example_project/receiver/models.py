"""What the receiver makes of what it is told."""

from django.db import models


class Printed(models.Model):
    """A comment of the guestbook, as the receiver has printed it."""

    message_id = models.CharField(max_length=255)
    name = models.CharField(max_length=80)
    text = models.TextField()
    left_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "printed"

    def __str__(self) -> str:
        return f"{self.name}: {self.text[:40]}"
