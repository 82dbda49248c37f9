"""Notes, which somebody wants to hear of, and plain ones, of which nobody does."""

from typing import ClassVar

from django.db import models


class BaseNote(models.Model):
    """About 1 KB of payload, and the instant at which it was saved, by the machine's own clock."""

    text = models.TextField()
    number = models.IntegerField(default=0)
    fired_at = models.FloatField()

    class Meta:
        abstract = True


class Note(BaseNote):
    """A note that is told of."""

    def __str__(self) -> str:
        return f"note {self.pk}"


class PlainNote(BaseNote):
    """A note like the others, to know what saving it costs alone."""

    def __str__(self) -> str:
        return f"plain note {self.pk}"


class Endpoint(models.Model):
    """Where a hand-written system sends to."""

    url = models.URLField()
    secret = models.CharField(max_length=64)

    objects: ClassVar[models.Manager["Endpoint"]] = models.Manager()

    def __str__(self) -> str:
        return self.url


class Call(models.Model):
    """One delivery of a hand-written system: a row that its job updates."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE)
    payload = models.JSONField()
    status_code = models.IntegerField(null=True)
    answer = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager["Call"]] = models.Manager()

    def __str__(self) -> str:
        return f"call {self.pk}"
