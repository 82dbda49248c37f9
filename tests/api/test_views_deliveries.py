"""Deliveries and attempts show what was sent and answered; a delivery is retried and cancelled."""

import pytest

from djwebhooks.models import Attempt
from djwebhooks.testing import deliver
from tests.api.world import Api, make_owner, make_webhooks

pytestmark = pytest.mark.django_db


def test_a_delivery_names_its_event_and_its_target() -> None:
    """All by their uids."""
    webhooks = make_webhooks(owner := make_owner())

    answer = Api(owner).get(f"deliveries/{webhooks.delivery.uid}/")

    assert answer.status == 200
    assert answer.data["event"] == str(webhooks.event.uid)
    assert answer.data["target"] == str(webhooks.target.uid)
    assert (answer.data["event_name"], answer.data["status"], answer.data["attempt_count"]) == ("project.update", "pending", 1)


def test_an_attempt_shows_what_was_answered() -> None:
    """Response headers and body are included; its id is the delivery's uid and its number."""
    webhooks = make_webhooks(owner := make_owner())

    answer = Api(owner).get(f"attempts/{webhooks.delivery.uid}-1/")

    assert answer.status == 200
    assert (answer.data["id"], answer.data["delivery"]) == (f"{webhooks.delivery.uid}-1", str(webhooks.delivery.uid))
    assert (answer.data["status_code"], answer.data["response_body"]) == (500, "no, thanks")
    assert answer.data["response_headers"]["x-kind"] == "test"
    assert answer.data["address"] == "192.0.2.1"
    assert [answer.data[f"{part}_ms"] for part in ("lookup", "connect", "tls", "first_byte")] == [12, None, None, 0]


@pytest.mark.parametrize("end", ["-2", "-0", "-01", "", "-", "-999999999999999999999", "-x"])
def test_an_attempt_has_one_address(end: str) -> None:
    """Every other id is 404."""
    webhooks = make_webhooks(owner := make_owner())

    assert Api(owner).get(f"attempts/{webhooks.delivery.uid}{end}/").status == 404


def test_retrying_makes_a_delivery_due() -> None:
    """POST retry/: 202, for what is pending and for what succeeded."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"deliveries/{webhooks.delivery.uid}/"

    assert api.post(path + "retry/").status == 202
    assert len(deliver()) == 1
    assert api.get(path).data["status"] == "succeeded"
    again = api.post(path + "retry/")
    assert (again.status, again.data["status"]) == (202, "pending")
    assert Attempt.objects.filter(delivery=webhooks.delivery).count() == 2


@pytest.mark.parametrize(("method", "end", "code"), [("POST", "cancel/", 200), ("DELETE", "", 204)])
def test_cancelling_ends_a_delivery_once(method: str, end: str, code: int) -> None:
    """POST cancel/ and DELETE cancel what is pending; what has finished is 409."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"deliveries/{webhooks.delivery.uid}/"

    assert api.call(method, path + end).status == code
    assert api.get(path).data["status"] == "cancelled"
    again = api.call(method, path + end)
    assert (again.status, list(again.data)) == (409, ["code", "detail"])
