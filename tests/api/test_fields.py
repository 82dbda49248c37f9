"""What a request with many mistakes costs."""

from typing import Any

import pytest
from rest_framework.exceptions import ValidationError
from rest_framework.serializers import IntegerField

from djwebhooks.api.fields import MOST_MISTAKES, ListField
from tests.api.world import URL, Api, make_owner

pytestmark = pytest.mark.django_db

MANY = 2 * MOST_MISTAKES


@pytest.mark.parametrize(
    "mistaken",
    [
        {"events": ["no name!"] * MANY},
        {"headers": {f"x-{number}": number for number in range(MANY)}},
        {"retry_schedule": ["soon"] * MANY},
        {f"x{number}": 1 for number in range(MANY)},
    ],
    ids=["a list", "an object", "numbers", "unknown fields"],
)
def test_the_first_mistakes_are_enough(mistaken: dict[str, Any]) -> None:
    """However many there are, as many are told as help somebody: an answer is not much larger than its request."""
    answer = Api(make_owner()).post("targets/", {"target_url": URL, "events": ["*"], **mistaken})

    assert len(answer.mistakes) == MOST_MISTAKES


def test_a_list_that_is_too_long_is_not_read() -> None:
    """Its length is told, and nothing of what is in it."""
    read: list[int] = []

    with pytest.raises(ValidationError, match="no more than 2 elements"):
        ListField(child=IntegerField(validators=[read.append]), max_length=2).run_validation([1, 2, 3])

    assert read == []
