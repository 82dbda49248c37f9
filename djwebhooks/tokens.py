"""Access tokens: the requests that ask a token server for one, and what its answers mean."""

from dataclasses import replace
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from djwebhooks import __version__, network, retry
from djwebhooks.authentication.base import AccessToken, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.transports.base import Reply, Request
from djwebhooks.work import Flight, Work

#: Bytes that a token server's answer may have.
TOKEN_LIMIT = 64 * 1024
#: What a failed request for a token has in common with one to the target: nobody can be reached, or nobody ever may.
SHARED_ERRORS = retry.OUR_OWN_FAULTS | retry.HOPELESS


@sensitive_variables()
def ask(work: Work, kind: TokenAuthentication) -> Request:
    """Return the request for an access token that *work* has to be sent with."""
    headers, body = kind.token_request
    return Request(
        key=work.delivery_id,
        url=network.check_url(kind.token_url),
        body=body,
        headers=headers | {"user-agent": f"djwebhooks/{__version__}"},
        timeout=conf.seconds("TIMEOUT"),
        connect_timeout=conf.seconds("CONNECT_TIMEOUT"),
        response_limit=TOKEN_LIMIT,
    )


@sensitive_variables()
def read(kind: TokenAuthentication, reply: Reply, now: datetime) -> AccessToken | Reply:
    """Return the token that *reply* holds, or what to record of it: nothing that the token server said is in that."""
    if reply.error in SHARED_ERRORS:
        return reply
    if reply.status is None:
        found: AccessToken | str = f"The token server could not be asked: {reply.error}."
    else:
        found = kind.read_token(reply.status, reply.body, now)
    if isinstance(found, AccessToken):
        return found
    return replace(reply, status=None, headers={}, body=b"", error=retry.AUTHENTICATION_ERROR, detail=found)


def is_refused(flight: Flight, reply: Reply) -> bool:
    """Whether the receiver did not take the access token of the request."""
    return flight.access_token is not None and reply.status == 401
