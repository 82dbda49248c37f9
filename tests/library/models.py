"""Models with one field of every kind that is hard to capture."""

from collections.abc import Sequence
from typing import Any, Self
from uuid import uuid4

from django.db import models

from tests.library.fields import PlaceField


class Genre(models.TextChoices):
    NOVEL = "novel"
    POETRY = "poetry"


class Author(models.Model):
    name = models.CharField(max_length=100)
    born_on = models.DateField(null=True)

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    """Whatever the library lends."""

    uid = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    title = models.CharField(max_length=100)
    acquired_at = models.DateTimeField(null=True)
    loan_time = models.DurationField(null=True)

    def __str__(self) -> str:
        return self.title


class Book(Item):
    """An item in a table of its own."""

    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="books")
    genre = models.CharField(max_length=10, choices=Genre, default=Genre.NOVEL)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    weight = models.FloatField(null=True)
    cover = models.FileField(upload_to="covers", blank=True)
    scan = models.BinaryField(null=True)
    details = models.JSONField(default=dict)
    scanner = models.GenericIPAddressField(null=True)
    place = PlaceField(max_length=20, null=True)


class Paperback(Book):
    """A book under another class in the same table."""

    class Meta:
        proxy = True


class Donation(models.Model):
    """What somebody gave."""

    number = models.BigAutoField(primary_key=True)
    donor = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.donor


class Gift(Item, Donation):
    """An item that somebody gave: a row in the tables of two parents, which have keys of their own."""

    wish = models.CharField(max_length=50, blank=True)


class Ticket(models.Model):
    """Leaves its key to the database."""

    number = models.IntegerField(primary_key=True, db_default=7)
    note = models.CharField(max_length=50, blank=True)

    def __str__(self) -> str:
        return f"ticket {self.number}"


class Seat(models.Model):
    """Has a key of two columns."""

    pk = models.CompositePrimaryKey("desk", "number")
    desk = models.CharField(max_length=20)
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"seat {self.number} at {self.desk}"


class Shelf(models.Model):
    """Remembers what was loaded, and leaves two values to the database."""

    name = models.CharField(max_length=50)
    width = models.IntegerField(db_default=90)
    depth = models.IntegerField(default=30)
    area = models.GeneratedField(
        expression=models.F("width") * models.F("depth"), output_field=models.IntegerField(), db_persist=True
    )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_db(cls, db: str | None, field_names: Sequence[str], values: Sequence[Any], **kwargs: Any) -> Self:
        instance = super().from_db(db, field_names, values, **kwargs)
        instance.loaded = dict(zip(field_names, values, strict=True))
        return instance
