"""Publish the targets' public keys, so that receivers of v1a fetch them: include this module's addresses where you like."""

import hashlib
import json
from uuid import UUID

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.http import quote_etag
from django.views.decorators.http import require_safe

from djwebhooks import signing
from djwebhooks.database import read_clock
from djwebhooks.exceptions import DjWebhooksError
from djwebhooks.models import WebhookTarget
from djwebhooks.models.keyring import Key

CONTENT_TYPE = "application/jwk-set+json"
#: Seconds that a receiver may keep what it has fetched: an overlap of keys should be longer.
MAX_AGE = 300


@login_not_required
@require_safe
def show_keys(request: HttpRequest, uid: UUID) -> HttpResponseBase:
    """Show a target's live public keys as a JWK Set (RFC 7517). A hidden target is 404, like one that does not exist."""
    target = WebhookTarget.objects.filter(uid=uid, is_hidden=False).first()
    if target is None:
        raise Http404("There are no keys at this address.")
    try:
        keys = target.complete_keyring().live(read_clock(WebhookTarget.objects.db))
    except DjWebhooksError:
        return HttpResponse(status=503)
    content = json.dumps({"keys": [describe(key) for key in keys]})
    response = HttpResponse(content, content_type=CONTENT_TYPE)
    response["ETag"] = quote_etag(hashlib.sha256(content.encode()).hexdigest())
    patch_cache_control(response, public=True, max_age=MAX_AGE)
    return get_conditional_response(request, etag=response["ETag"], response=response) or response


def describe(key: Key) -> dict[str, str]:
    """Return the public half of *key* as a JSON Web Key (RFC 8037)."""
    return signing.as_jwk(key.public_key) | {"kid": key.id, "use": "sig", "alg": "EdDSA"}


urlpatterns = [path("<uuid:uid>/jwks.json", show_keys, name="djwebhooks-jwks")]
