"""A target gets the events whose payloads its filters let through, and of the others it is known why it does not."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks import feed
from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.explain import explain_name, explain_uid
from djwebhooks.filters import MOST_CHARACTERS_OF_ALL, MOST_COMPARISONS, MOST_ITEMS, check_filters, judge
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.models.deliveries import FILTERED, Status
from djwebhooks.testing import deliver
from tests.api.world import Api
from tests.builders import URL, make_target, make_user

DB = "default"


@pytest.fixture
def owner(db: None) -> User:
    return make_user()


def register(owner: User, filters: Any, events: tuple[str, ...] = ("order.*",), **fields: Any) -> WebhookTarget:
    return WebhookTarget.objects.register(URL, list(events), owner=owner, filters=filters, **fields)


def fits(pattern: Any, payload: object) -> bool:
    """Whether a filter of everything lets *payload* through."""
    verdict = judge({"*": pattern}, ["*"], "a.b", payload)
    assert verdict is not None
    return verdict


def sent() -> list[str]:
    """What is sent now, as the names in the envelopes and the payloads."""
    return [request.body.decode().partition('"data":')[2].removesuffix("}") for request in deliver()]


# -- the notation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alternative", "fitting", "others"),
    [
        ("paid", ["paid", ["new", "paid"]], ["Paid", "", None, 1, [], {}, ["new"]]),
        (1, [1, 1.0], [True, "1", 2]),
        (True, [True], [1, "true", False]),
        (None, [None], ["", 0, False]),
        ({"prefix": "EU-"}, ["EU-1", "EU-"], ["eu-1", "xEU-", 1, None]),
        ({"suffix": ".png"}, ["a.png"], ["a.PNG", "png", 1]),
        ({"equals-ignore-case": "Straße"}, ["STRASSE", "straße"], ["strase", None]),
        ({"anything-but": "new"}, ["paid", 1, None, ["new", "paid"]], ["new", ["new"], []]),
        ({"anything-but": ["new", 1, None]}, ["paid", 2, True], ["new", 1, None]),
        ({"numeric": [">", 0]}, [0.5, 10**400, [-1, 1]], [0, -1, "1", True, None]),
        ({"numeric": [">=", 1, "<", 5]}, [1, 4.9], [5, 0]),
        ({"numeric": ["=", 3]}, [3, 3.0], [3.1]),
        ({"numeric": ["<=", 3]}, [3, -1], [4]),
        ({"exists": True}, ["", None, 0, [], {}], []),
    ],
)
def test_an_alternative_is_true_for_some_values(alternative: object, fitting: list[object], others: list[object]) -> None:
    """Each test of the notation holds for what it says, and for nothing else; of a list one item is enough."""
    pattern = {"status": [alternative]}
    check_filters({"*": pattern})

    assert [value for value in fitting if not fits(pattern, {"status": value})] == []
    assert [value for value in others if fits(pattern, {"status": value})] == []


@pytest.mark.parametrize(
    "alternative", ["a", None, {"prefix": "a"}, {"anything-but": "a"}, {"numeric": ["<", 9]}, {"exists": True}]
)
def test_a_missing_field_fits_nothing(alternative: object) -> None:
    """But that it does not exist."""
    assert not fits({"status": [alternative]}, {})
    assert fits({"status": [{"exists": False}]}, {})
    assert fits({"status": {"deep": [{"exists": False}]}}, {})
    assert not fits({"status": [{"exists": False}]}, {"status": None})


@pytest.mark.parametrize("around", [None, "x", 1, True, [], {}, [None], ["x", {"code": "a"}]])
def test_a_field_of_what_is_no_object_is_missing(around: object) -> None:
    """As serializers write null, or an empty list, for what is not there; no other test holds for it."""
    assert fits({"coupon": {"code": [{"exists": False}]}}, {"coupon": around})
    assert fits({"coupon": {"code": {"deep": [{"exists": False}]}}}, {"coupon": around})
    for alternative in (None, "b", {"anything-but": "a"}, {"prefix": "b"}):
        assert not fits({"coupon": {"code": [alternative]}}, {"coupon": around})


def test_a_field_of_an_object_around_is_there() -> None:
    """Though what it is in might be missing as well."""
    assert not fits({"coupon": {"code": [{"exists": False}]}}, {"coupon": {"code": None}})
    assert not fits({"coupon": {"code": [{"exists": False}]}}, {"coupon": [{"code": "a"}]})


def test_all_fields_and_one_of_their_alternatives() -> None:
    """Fields are joined by and, alternatives by or; objects are looked into, and one item of a list is enough."""
    pattern = {"status": ["paid", {"prefix": "re"}], "customer": {"country": ["de"]}, "lines": {"sku": ["b"], "count": [2]}}
    fitting = {"status": "refunded", "customer": {"country": "de"}, "lines": [{"sku": "a"}, {"sku": "b", "count": 2}], "more": 1}

    assert fits(pattern, fitting)
    assert not fits(pattern, fitting | {"status": "new"})
    assert not fits(pattern, fitting | {"customer": {"country": "fr"}})
    assert not fits(pattern, fitting | {"customer": "de"})
    assert not fits(pattern, fitting | {"lines": [{"sku": "a", "count": 2}, {"sku": "b", "count": 1}]})


@pytest.mark.parametrize("payload", [None, 1, "paid", [], [{"status": "paid"}], True])
def test_a_payload_that_is_no_object_has_no_fields(payload: object) -> None:
    """No filter lets it through."""
    assert not fits({"status": ["paid"]}, payload)
    assert not fits({"status": [{"exists": False}]}, payload)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "filters must be an object"),
        ({"*": []}, r"filters\['\*'\]: The filter must be an object of fields, not \[\]"),
        ({"*": {}}, "The filter must be an object of fields"),
        ({"*": {"a": {}}}, "filter 'a' must be an object of fields"),
        ({"*": {"a": "paid"}}, "filter 'a' must be a list of alternatives, such as .*, or an object, not 'paid'"),
        ({"*": {"a": []}}, "filter 'a' must be a list of alternatives"),
        ({"*": {"a": {"b": [["c"]]}}}, r"filter 'a.b\[0\]' must be a text, a number, true, false, null or a test"),
        ({"*": {"a": ["b", {"like": "x"}]}}, r"filter 'a\[1\]' must be an object of one of prefix, .*, not {'like': 'x'}"),
        ({"*": {"a": [{}]}}, r"filter 'a\[0\]' must be an object of one of"),
        ({"*": {"a": [{"prefix": "x", "suffix": "y"}]}}, r"filter 'a\[0\]' must be an object of one of"),
        ({"*": {"a": [{"prefix": 1}]}}, r"filter 'a\[0\].prefix' must be a text, not 1"),
        ({"*": {"a": [{"suffix": ""}]}}, r"filter 'a\[0\].suffix' must be a text"),
        ({"*": {"a": [{"anything-but": []}]}}, r"filter 'a\[0\].anything-but' must be"),
        ({"*": {"a": [{"anything-but": {"prefix": "x"}}]}}, r"filter 'a\[0\].anything-but' must be"),
        ({"*": {"a": [{"exists": "no"}]}}, r"filter 'a\[0\].exists' must be true or false"),
        ({"*": {"a": [{"numeric": 5}]}}, r"filter 'a\[0\].numeric' must be one or two comparisons"),
        ({"*": {"a": [{"numeric": [">"]}]}}, r"filter 'a\[0\].numeric' must be"),
        ({"*": {"a": [{"numeric": ["!=", 5]}]}}, r"filter 'a\[0\].numeric' must be"),
        ({"*": {"a": [{"numeric": [["="], 5]}]}}, r"filter 'a\[0\].numeric' must be"),
        ({"*": {"a": [{"numeric": [">", True]}]}}, r"filter 'a\[0\].numeric' must be"),
        ({"*": {"a": [float("nan")]}}, "A filter is a JSON object"),
        ({"*": {"a": [object()]}}, "A filter is a JSON object"),
        ({"*": {1: ["a"]}}, "has the field 1: names are texts"),
        ({"*": {"a": ["\0"]}}, "a character that a database cannot hold"),
        ({"*": {"\ud800": ["a"]}}, "a character that a database cannot hold"),
        ({"*": {"a": ["x" * 3000]}}, "A filter may have 2048 characters of JSON"),
        ({"*": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": ["x"]}}}}}}}}}}, "is 9 objects deep; 8 are possible"),
    ],
)
def test_what_is_no_filter_is_refused(wrong: object, said: str) -> None:
    """The error says what is wrong, and where."""
    with pytest.raises(InvalidTarget) as raised:
        check_filters(wrong)

    assert re.search(said, raised.value.message)


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_one_of_the_first_items_of_a_list_is_enough() -> None:
    """What comes after them is not looked at: among scalars, by a test, or inside of objects."""
    others = [0] * (MOST_ITEMS - 1)

    for pattern, before, item in (
        ({"n": [5]}, others, 5),
        ({"n": [{"numeric": ["=", 5]}]}, others, 5),
        ({"n": {"m": [5]}}, [{"m": 0}] * (MOST_ITEMS - 1), {"m": 5}),
    ):
        assert fits(pattern, {"n": [*before, item]})
        assert not fits(pattern, {"n": [*before, before[0], item]})


def test_any_number_of_scalars_costs_no_more_than_one() -> None:
    """They are looked up at once, also those of ``anything-but``."""
    scalars = list(range(500))

    assert not fits({"n": scalars}, {"n": [-1] * MOST_ITEMS})
    assert not fits({"n": [{"anything-but": scalars}]}, {"n": [1] * MOST_ITEMS})


@pytest.mark.parametrize(
    ("pattern", "payload"),
    [
        ({"n": [{"prefix": str(number)} for number in range(20)]}, {"n": ["x"] * MOST_ITEMS}),
        ({"n": [{"numeric": ["=", number]} for number in range(20)]}, {"n": [-1] * MOST_ITEMS}),
        ({str(number): [{"anything-but": "y"}] for number in range(20)}, {str(number): ["x"] * 600 for number in range(20)}),
        ({"n": {"m": {"o": [1]}}}, {"n": [{"m": [{}] * 100}] * 100}),
    ],
)
def test_a_judgement_has_an_end(pattern: Any, payload: object) -> None:
    """What would take more than so many comparisons is not judged, whatever they are; of all subscriptions together."""
    check_filters({"*": pattern})

    assert judge({"*": pattern}, ["*"], "a.b", payload) is None


def test_all_subscriptions_have_one_budget() -> None:
    """A name of many parts matches many patterns, and each of them may have a filter."""
    patterns = [".".join(["a"] * count) + ".*" for count in range(1, 20)]
    filters = {pattern: {"n": [0]} for pattern in patterns}
    name, payload, few = "a." * 19 + "b", {"n": [1] * MOST_ITEMS}, MOST_COMPARISONS // MOST_ITEMS - 1

    assert judge(filters, patterns[:few], name, payload) is False
    assert judge(filters, patterns, name, payload) is None


def test_a_long_text_is_not_folded() -> None:
    """It cannot be the same as a short one."""

    class Text(str):
        def casefold(self) -> str:
            raise AssertionError("It was folded.")

    assert not fits({"n": [{"equals-ignore-case": "ß"}]}, {"n": Text("xxx")})


def test_what_is_too_costly_to_judge_is_sent(owner: User, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver can throw away an event too much, and cannot make up for one that is missing. The log and who asks are told."""
    register(owner, {"order.*": {"n": [{"prefix": str(number)} for number in range(20)]}})
    event = fire("order.paid", {"n": ["x"] * MOST_ITEMS}, owner=owner)

    assert len(deliver()) == 1
    assert "is not filtered: that takes more than 10000 comparisons" in caplog.text
    assert "Not filtered: to hold its payload against" in lines(explain_uid(Delivery.objects.get().uid))
    assert "Not filtered" not in lines(explain_uid(event.uid))


def test_all_filters_of_a_target_have_one_limit() -> None:
    """However many events it is subscribed to."""
    full = {f"e{number}": {"a": ["x" * 1500]} for number in range(MOST_CHARACTERS_OF_ALL // 1520)}
    check_filters(full)

    with pytest.raises(
        InvalidTarget, match=r"The filters of a target may have 16384 characters of JSON together; these have \d+\."
    ):
        check_filters(full | {"more": {"a": ["x" * 1500]}})


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_only_what_fits_is_sent(owner: User) -> None:
    """The rest ends as cancelled without an attempt, and is filtered, as its reason says."""
    register(owner, {"order.*": {"status": ["paid"]}})
    for status in ("new", "paid", "sent"):
        fire("order.changed", {"status": status}, owner=owner)

    assert sent() == ['{"status":"paid"}']
    rows = Delivery.objects.order_by("sequence").values_list("sequence", "status", "reason", "attempt_count")
    ended = (Status.CANCELLED, FILTERED, 0)
    assert list(rows) == [(1, *ended), (2, Status.SUCCEEDED, "", 1), (3, *ended)]
    assert not Attempt.objects.exclude(delivery__sequence=2).exists()
    assert Lane.objects.get().failure_count == 0


@hook("order.built")
def order_built(status: str, owner: User) -> dict[str, str]:
    return {"status": status}


def test_what_a_hook_builds_is_judged(owner: User) -> None:
    """A payload that is built in the worker is judged when it is there."""
    register(owner, {"order.*": {"status": ["paid"]}})
    for status in ("new", "paid"):
        order_built(status, owner)

    assert sent() == ['{"status":"paid"}']


def test_an_ordered_target_goes_on(owner: User) -> None:
    """What stands behind a delivery that is filtered is sent, and in its order."""
    register(owner, {"order.*": {"n": [{"anything-but": [0, 2]}]}}, is_ordered=True)
    for number in range(5):
        fire("order.changed", {"n": number}, owner=owner, ordering_key="k")

    assert sent() == ['{"n":1}', '{"n":3}', '{"n":4}']


@pytest.mark.parametrize(
    ("events", "filters", "is_sent"),
    [
        (("order.*", "order.paid"), {"order.*": {"n": [2]}}, True),
        (("order.*", "*"), {"order.*": {"n": [2]}, "*": {"n": [3]}}, False),
        (("order.*", "*"), {"order.*": {"n": [2]}, "*": {"n": [1]}}, True),
        (("order.paid", "order.sent"), {"order.sent": {"n": [2]}}, True),
    ],
)
def test_one_subscription_is_enough(owner: User, events: tuple[str, ...], filters: Any, is_sent: bool) -> None:
    """If several match an event, one without a filter, or with one that fits, lets it through."""
    register(owner, filters, events)
    fire("order.paid", {"n": 1}, owner=owner)

    assert bool(sent()) == is_sent


def test_each_target_has_its_own(owner: User) -> None:
    """What one target does not want, another one gets."""
    register(owner, {"order.*": {"n": [2]}})
    make_target(owner, url=f"{URL}/all")
    fire("order.paid", {"n": 1}, owner=owner)

    assert [request.url for request in deliver()] == [f"{URL}/all"]


def test_what_goes_straight_to_a_target_is_not_filtered(owner: User) -> None:
    """Tests, and events for URLs, have no subscription that a filter could be of."""
    target = register(owner, {"*": {"n": [2]}}, ("*",))
    target.send_test()
    fire("order.paid", {"n": 1}, urls=URL, owner=owner)

    assert len(sent()) == 2


def test_what_people_want_sent_is_sent(owner: User) -> None:
    """A delivery that was filtered can be retried, and stays unfiltered then, also when an attempt fails."""
    register(owner, {"order.*": {"n": [2]}}, retry_schedule=[0, 0])
    fire("order.paid", {"n": 1}, owner=owner)
    assert sent() == []
    Delivery.objects.get().retry()

    assert len(deliver(500)) == 3


def test_the_filters_of_now_count(owner: User) -> None:
    """What waits is judged by the filters that there are when it is its turn."""
    target = register(owner, {"order.*": {"n": [2]}})
    target.pause()
    fire("order.paid", {"n": 1}, owner=owner)
    dispatch(DB)
    target.filters = {"order.*": {"n": [1]}}
    target.save()
    target.resume()

    assert sent() == ['{"n":1}']


def test_the_version_that_is_sent_is_judged(owner: User) -> None:
    """A target with a version of its own has filters for that."""
    register(owner, {"order.*": {"n": [1]}}, version="2024")
    fire("order.paid", {"n": 2}, owner=owner, versions={"2024": {"n": 1}})
    fire("order.paid", {"n": 1}, owner=owner, versions={"2024": {"n": 2}})

    assert sent() == ['{"n":1}']


def test_what_is_filtered_uses_up_nothing_of_a_rate(owner: User) -> None:
    """The instant that was reserved for it is for the next one."""
    register(owner, {"order.*": {"n": [5]}}, rate_limit=1, rate_period="hour")
    for number in range(6):
        fire("order.paid", {"n": number}, owner=owner)

    assert sent() == ['{"n":5}']


def test_a_filter_that_cannot_be_is_our_own_fault(owner: User) -> None:
    """One that somebody has written past all checks keeps its deliveries, and nobody else's."""
    register(owner, None)
    WebhookTarget.objects.update(filters={"order.*": {"n": 5}})
    make_target(owner, url=f"{URL}/all")
    fire("order.paid", {"n": 1}, owner=owner)

    assert [request.url for request in deliver()] == [f"{URL}/all"]
    assert Delivery.objects.pending().get().reason == "internal_error"


def test_targets_without_filters_pay_nothing(owner: User) -> None:
    """Neither their subscriptions nor payloads are read for it."""
    make_target(owner)
    fire("order.paid", {"n": 1}, owner=owner)
    dispatch(DB)
    with CaptureQueriesContext(connection) as captured:
        deliver()

    assert [query["sql"] for query in captured if "djw_subscription" in query["sql"]] == []


# -- what is known of it -----------------------------------------------------------------------------------------------


def lines(explanation: Any) -> str:
    return "\n".join(line for section in explanation.sections for line in section.lines)


def test_it_is_explained(owner: User) -> None:
    """Who asks for the event sees the filter; who asks for what became of it sees that it was filtered."""
    register(owner, {"order.*": {"n": [2]}})
    event = fire("order.paid", {"n": 1}, owner=owner)

    assert 'subscribed to order.* (if its payload fits {"n": [2]})' in lines(explain_uid(event.uid))
    assert 'subscribed to order.* (if its payload fits {"n": [2]})' in lines(explain_name("order.paid"))
    deliver()
    assert "cancelled (filtered), 0 attempts" in lines(explain_uid(event.uid))
    assert "Filtered: its payload is none that" in lines(explain_uid(Delivery.objects.get().uid))


def test_the_feed_has_what_fits(owner: User) -> None:
    """What waits is left out of the feed as well, if it will be filtered."""
    target = register(owner, {"order.*": {"n": [2]}})
    target.pause()
    for number in (1, 2, 3):
        fire("order.paid", {"n": number}, owner=owner)
    dispatch(DB)

    page = feed.read_page(WebhookTarget.objects.get(), 0, DB)

    assert ([item.sequence for item in page.items], page.after) == ([2], 3)


def test_the_feed_has_what_people_want_sent(owner: User) -> None:
    """Also while it waits to be sent again, though it was filtered."""
    register(owner, {"order.*": {"n": [2]}})
    fire("order.paid", {"n": 1}, owner=owner)
    deliver()
    assert feed.read_page(WebhookTarget.objects.get(), 0, DB).items == []

    Delivery.objects.get().retry()

    assert [item.sequence for item in feed.read_page(WebhookTarget.objects.get(), 0, DB).items] == [1]


# -- setting them ------------------------------------------------------------------------------------------------------


def test_filters_are_checked_when_they_are_set(owner: User) -> None:
    """A filter that makes no sense, or is for an event that the target is not subscribed to, is refused by name."""
    with pytest.raises(InvalidTarget) as nonsense:
        register(owner, {"order.*": {"n": 5}})
    with pytest.raises(InvalidTarget) as stranger:
        register(owner, {"order.paid": {"n": [5]}})

    assert nonsense.value.message.startswith("filters['order.*']: filter 'n' must be a list of alternatives")
    assert stranger.value.message == "filters['order.paid'] is for none of the target's events: order.*."
    assert not WebhookTarget.objects.exists()


@pytest.mark.parametrize("wrong", [[], "", 0, False, ["order.*"]])
def test_filters_are_an_object_or_none(wrong: object, owner: User) -> None:
    """What is neither is refused in one way wherever they are set, and takes no filter away."""
    with pytest.raises(InvalidTarget) as registered:
        register(owner, wrong)
    target = register(owner, filters := {"order.*": {"n": [5]}})
    target.filters = wrong
    with pytest.raises(InvalidTarget) as cleaned:
        target.clean()
    answer = Api(owner).patch(f"targets/{target.uid}/", {"filters": wrong})
    target.refresh_from_db()

    assert registered.value.message == (
        f'filters must be an object, such as {{"order.*": {{"status": ["paid"]}}}}, not {wrong!r}.'
    )
    assert cleaned.value.message == registered.value.message
    assert answer.mistakes == {"filters": [registered.value.message]}
    assert target.filters == filters


def test_a_filter_goes_with_its_event(owner: User) -> None:
    """Who subscribes again later gets everything."""
    target = register(owner, {"order.*": {"n": [2]}, "refund.made": {"n": [2]}}, ("order.*", "refund.made"))
    target.events = ["refund.made"]
    target.save()
    target.refresh_from_db()
    assert target.filters == {"refund.made": {"n": [2]}}

    WebhookTarget.objects.deregister(URL, owner=owner)

    assert WebhookTarget.objects.get().filters is None
