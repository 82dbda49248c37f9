"""The handshake by which receivers of CloudEvents allow that they are sent to."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from djwebhooks.conf import conf

#: A number of requests per minute; an asterisk, or a larger number, is no limit.
RATE = re.compile("[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Permission:
    """What the receiver at *url* allowed *origin* to do: so many requests a second, or any number.

    Of a sender's URL, *url* is the scheme, host and port alone.
    """

    url: str
    origin: str
    rate: float | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """What the database keeps of it; ``restore`` makes it again of that."""
        return asdict(self)

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Self:
        return cls(**stored)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The question whether *origin*, a DNS name, may send to *url*, at *rate* requests a second if it knows that.

    The permission is for *covers*, by default the whole URL.
    CloudEvents 1.0.2, "HTTP 1.1 Web Hooks for Event Delivery", section 4.
    """

    url: str
    origin: str
    rate: float | None = None
    covers: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What it is asked with: rates are told as requests per minute."""
        rate = {} if self.rate is None else {"webhook-request-rate": str(max(1, round(self.rate * 60)))}
        return {"webhook-request-origin": self.origin, **rate}

    def read(self, status: int, headers: Mapping[str, str]) -> Permission | str:
        """Return the permission that the answer gives, or a sentence that says why there is none.

        The header alone counts: a receiver that knows nothing of this may answer OPTIONS with any *status*.
        """
        told = {name.lower(): value.strip() for name, value in headers.items()}
        allowed = told.get("webhook-allowed-origin", "")
        if allowed != "*" and allowed.lower() != self.origin.lower():
            said = f"allows {allowed[:100]!r} only" if allowed else "has no header WebHook-Allowed-Origin"
            return f"The receiver did not allow {self.origin} to send to it: its answer to OPTIONS ({status}) {said}."
        rate = RATE.fullmatch(told.get("webhook-allowed-rate", ""))
        return Permission(self.covers or self.url, self.origin, int(rate[0]) / 60 if rate else None)


def find_origin(envelope: str) -> str:
    """Return whose permission is asked for where webhooks go in *envelope*, a target's own; empty if nobody is asked."""
    return conf.CLOUDEVENTS_ORIGIN if conf.CLOUDEVENTS_ORIGIN and (envelope or conf.ENVELOPE).startswith("cloudevents") else ""
