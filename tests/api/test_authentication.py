"""What a target authenticates with, through the API: written, kept, summed up, and never shown."""

from typing import Any

import pytest
import trustme
from django.conf import LazySettings
from django.views.debug import ExceptionReporter

from djwebhooks.api.serializers import TargetSerializer
from djwebhooks.models import WebhookTarget
from tests.api.world import URL, Api, make_owner, make_target
from tests.keys import make_certificate, make_key
from tests.test_secrets import Watch

SECRET = "hunter2-is-not-shown"
BASIC = {"type": "basic", "username": "ada", "password": SECRET}
JWT = {"type": "jwt", "algorithm": "ES256", "key": make_key("P-256"), "claims": {"sub": "p-42", "nested": [{"a": None}]}}
CERTIFICATE = make_certificate(trustme.CA())
NEW = {"target_url": URL, "events": ["*"]}

pytestmark = pytest.mark.django_db


def test_it_is_written_and_summed_up() -> None:
    """The answer has what is not secret, and the target what was given."""
    answer = Api(make_owner()).post("targets/", NEW | {"authentication": JWT, "client_certificate": CERTIFICATE})
    target = WebhookTarget.objects.get()

    assert answer.status == 201
    assert answer.data["authentication_summary"] == {
        "type": "jwt", "algorithm": "ES256", "claims": JWT["claims"], "lifetime": 60,
    }  # fmt: skip
    assert answer.data["client_certificate_summary"] == target.client_certificate_summary
    assert target.authentication == JWT
    assert target.client_certificate.strip() == CERTIFICATE.strip()


def test_it_is_never_shown() -> None:
    """No answer has it, nor a name that would suggest that there is none."""
    target = make_target(owner := make_owner(), authentication=BASIC, client_certificate=CERTIFICATE)
    api, path = Api(owner), f"targets/{target.uid}/"
    answers = [api.get(path), api.patch(path, {"description": "x"}), api.put(path, NEW), api.get("targets/")]
    answers += [api.post(path + name) for name in ("pause/", "resume/", "rotate-secret/")]

    assert all(answer.status == 200 for answer in answers)
    assert "authentication" not in answers[0].data
    assert "client_certificate" not in answers[0].data
    assert not [text for text in (SECRET, "PRIVATE KEY") if text in str(answers)]


def test_what_is_not_given_is_kept() -> None:
    """PATCH and PUT without it, and a PUT of what GET showed, change nothing of it."""
    target = make_target(owner := make_owner(), authentication=BASIC, client_certificate=CERTIFICATE)
    api, path = Api(owner), f"targets/{target.uid}/"
    statuses = [api.patch(path, {"description": "x"}).status, api.put(path, NEW).status, api.put(path, api.get(path).data).status]
    again = WebhookTarget.objects.get()

    assert statuses == [200] * 3
    assert (again.authentication, again.client_certificate) == (BASIC, CERTIFICATE)


@pytest.mark.parametrize(("authentication", "certificate"), [(None, ""), ({}, "")])
def test_it_can_be_removed(authentication: object, certificate: str) -> None:
    """Null or an empty object is none, and so is an empty text."""
    target = make_target(owner := make_owner(), authentication=BASIC, client_certificate=CERTIFICATE)
    answer = Api(owner).patch(f"targets/{target.uid}/", {"authentication": authentication, "client_certificate": certificate})
    again = WebhookTarget.objects.get()

    assert (answer.data["authentication_summary"], answer.data["client_certificate_summary"]) == ({}, {})
    assert (again.authentication, again.client_certificate) == ({}, "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("authentication", {"type": "digest", "password": SECRET}, "whose type is one of"),
        ("authentication", BASIC | {"realm": SECRET}, "no part 'realm'"),
        ("authentication", {"type": "basic", "password": SECRET}, "needs a part 'username'"),
        ("authentication", [SECRET], "Expected a dictionary"),
        ("authentication", SECRET, "Expected a dictionary"),
        ("authentication", BASIC | {"password": {"x": SECRET}}, "is a text"),
        ("authentication", JWT | {"key": SECRET}, "does not suit ES256"),
        (
            "authentication",
            {"type": "oauth2", "token_url": "https://169.254.169.254/", "client_id": "x", "client_secret": SECRET},
            "The token_url: The address 169.254.169.254 is forbidden",
        ),
        ("client_certificate", SECRET, "0 certificates and 0 keys"),
        ("client_certificate", None, "may not be null"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_cannot_work_is_refused(method: str, name: str, value: Any, words: str) -> None:
    """400 under the field's name, in words that do not repeat what is secret; and nothing changes."""
    target = make_target(owner := make_owner(), authentication=BASIC)
    path, body = ("targets/", NEW | {"target_url": URL + "/new"}) if method == "POST" else (f"targets/{target.uid}/", {})
    answer = Api(owner).call(method, path, body | {name: value})

    assert answer.status == 400
    assert answer.wrong_fields == [name]
    assert words in str(answer.mistakes[name])
    assert SECRET not in str(answer.data)
    assert WebhookTarget.objects.get().authentication == BASIC


def test_two_authorizations_are_refused() -> None:
    """A header of that name beside an authentication is a mistake, whichever came first."""
    owner = make_owner()
    first = make_target(owner, authentication=BASIC)
    second = make_target(owner, url=URL + "/2", headers={"AUTHORIZATION": "x"})
    api = Api(owner)
    answers = [
        api.patch(f"targets/{first.uid}/", {"headers": {"Authorization": SECRET}}),
        api.patch(f"targets/{second.uid}/", {"authentication": BASIC}),
    ]

    assert [answer.status for answer in answers] == [400, 400]
    assert all("remove one of them" in str(answer.data) for answer in answers)


@pytest.mark.parametrize("name", ["authentication_summary", "client_certificate_summary"])
def test_a_summary_cannot_be_written(name: str) -> None:
    """It is told that there is no such field to write."""
    target = make_target(owner := make_owner())

    assert Api(owner).patch(f"targets/{target.uid}/", {name: {}}).status == 400


def test_a_lost_key_leaves_the_rest_usable(settings: LazySettings) -> None:
    """Lists and rows are shown, say what cannot be read, and it can be set anew."""
    target = make_target(owner := make_owner(), headers={"x": "1"}, authentication=BASIC, client_certificate=CERTIFICATE)
    api, path = Api(owner), f"targets/{target.uid}/"
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key, long enough that no check complains about it", []
    api.client.force_login(owner)
    shown = api.get(path).data
    refused = api.patch(path, {"description": "x"})
    anew = api.patch(path, {"headers": {}, "authentication": None, "client_certificate": ""})

    assert (shown["headers"], shown["authentication_summary"]) == (None, {"type": "unreadable"})
    assert api.get("targets/").status == 200
    assert (refused.status, anew.status) == (400, 200)
    assert "has to be set anew" in str(refused.data)


def test_a_report_of_an_error_does_not_show_it() -> None:
    """What is mailed to the administrators, with every local variable of ours, has no secret in it."""
    serializer = TargetSerializer(make_target(make_owner()))
    with pytest.raises(AttributeError) as error:
        serializer.update(object(), {"authentication": BASIC, "client_certificate": CERTIFICATE})
    report = ExceptionReporter(None, error.type, error.value, error.tb.tb_next).get_traceback_html()

    assert "********************" in report
    assert not [text for text in (SECRET, CERTIFICATE[100:140]) if text in report]


def test_no_variable_shows_it() -> None:
    """No tool that shows the variables of a traceback can show what was written, refused or kept."""
    api = Api(make_owner())
    with Watch(SECRET, CERTIFICATE.splitlines()[1]) as watch:
        made, again = (api.post("targets/", NEW | {"authentication": BASIC, "client_certificate": CERTIFICATE}) for _ in range(2))
        path = f"targets/{made.data['id']}/"
        refused = api.patch(path, {"authentication": BASIC | {"realm": SECRET}})
        changed = api.patch(path, {"authentication": {"type": "bearer", "token": SECRET}})

    assert (made.status, again.status, refused.status, changed.status) == (201, 200, 400, 200)
    assert watch.lines > 1000
    assert watch.found == set()
