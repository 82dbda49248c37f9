"""What must be got before anything is sent: access tokens and permissions, how they are asked for, and what answers mean."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from djwebhooks import network, retry
from djwebhooks.authentication.base import AccessToken, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.handshake import Handshake, Permission
from djwebhooks.transports.base import USER_AGENT, Reply, Request
from djwebhooks.work import Flight, Work

#: Bytes that a token server's answer may have.
TOKEN_LIMIT = 64 * 1024
#: What a failed request for a token has in common with one to the target: nobody can be reached, or nobody ever may.
SHARED_ERRORS = retry.OUR_OWN_FAULTS | retry.HOPELESS


@sensitive_variables()
def ask(work: Work, asked: TokenAuthentication) -> Request:
    """Return the request for an access token that *work* has to be sent with."""
    headers, body = asked.token_request
    return Request(
        key=work.delivery_id,
        url=network.check_url(asked.token_url),
        body=body,
        headers=headers | {"user-agent": USER_AGENT},
        timeout=conf.seconds("TIMEOUT"),
        connect_timeout=conf.seconds("CONNECT_TIMEOUT"),
        response_limit=TOKEN_LIMIT,
    )


def ask_permission(work: Work, asked: Handshake, own: Mapping[str, str], certificate: str) -> Request:
    """Return the request for a permission that *work* has to be sent with, and that has the target's *own* headers."""
    return Request(
        key=work.delivery_id,
        url=asked.url,
        body=b"",
        headers={**own, **asked.headers, "user-agent": USER_AGENT},
        timeout=conf.seconds("TIMEOUT"),
        connect_timeout=conf.seconds("CONNECT_TIMEOUT"),
        response_limit=conf.RESPONSE_LIMIT,
        client_certificate=certificate,
        method="OPTIONS",
    )


def read(asked: TokenAuthentication | Handshake, reply: Reply, now: datetime) -> AccessToken | Permission | Reply:
    """Return what *reply* grants, or what to record of it if that is nothing."""
    return _read_permission(asked, reply) if isinstance(asked, Handshake) else _read_token(asked, reply, now)


def _read_permission(asked: Handshake, reply: Reply) -> Permission | Reply:
    if reply.status is None or reply.error:
        return reply
    found = asked.read(reply.status, reply.headers)
    if isinstance(found, Permission):
        return found
    return replace(reply, status=None, headers={}, body=b"", error=retry.NOT_PERMITTED, detail=found)


@sensitive_variables()
def _read_token(asked: TokenAuthentication, reply: Reply, now: datetime) -> AccessToken | Reply:
    """Return the token, or what to record: nothing that the token server said is in that."""
    if reply.error in SHARED_ERRORS:
        return reply
    if reply.status is None:
        found: AccessToken | str = f"The token server could not be asked: {reply.error}."
    else:
        found = asked.read_token(reply.status, reply.body, now)
    if isinstance(found, AccessToken):
        return found
    return replace(reply, status=None, headers={}, body=b"", error=retry.AUTHENTICATION_ERROR, detail=found)


@sensitive_variables()
def find_shown(token: AccessToken | None, request: Request) -> AccessToken | None:
    """Return *token* if *request* shows it: one to another host than the target's does not."""
    return token if token is not None and token.text in request.headers.get("authorization", "") else None


def is_refused(flight: Flight, reply: Reply) -> bool:
    """Whether the receiver did not take the access token of the request."""
    return flight.access_token is not None and reply.status == 401
