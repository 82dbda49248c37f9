"""How often a user may have requests made that somebody else's server has to answer."""

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from djwebhooks.conf import conf


class ActionThrottle(SimpleRateThrottle):
    """Counts a user's requests to the addresses of one scope, at the rate that ``DJWEBHOOKS_API_THROTTLES`` has for it."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__()

    def get_rate(self) -> str | None:
        """Return the rate, none for no limit."""
        return conf.API_THROTTLES.get(str(self.scope))

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return the key of the user's count."""
        return f"djwebhooks:throttle:{self.scope}:{request.user.pk}"
