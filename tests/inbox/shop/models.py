"""What handlers have done."""

from django.db import models


class Effect(models.Model):
    """A handler has run for a message; nothing keeps it from having run twice."""

    handler = models.CharField(max_length=50)
    message_id = models.CharField(max_length=255)
    event = models.CharField(max_length=255, blank=True)

    def __str__(self) -> str:
        return f"{self.handler} of {self.message_id}"
