"""Who visits the portal, what they press there, and what they read."""

import re
from html import unescape
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

#: What an address of the portal's own is of.
KINDS = {"targets/": "target", "deliveries/": "delivery"}


def visit(user: User | None, **options: Any) -> Client:
    """A browser, with *user* logged in."""
    client = Client(**options)
    if user is not None:
        client.force_login(user)
    return client


def url_of(name: str, row: Any = None, **prefix: str) -> str:
    """The address of a page, below the organisation in *prefix* if there is one."""
    namespace = "organisation" if prefix else "djwebhooks_portal"
    return reverse(f"{namespace}:{name}", kwargs=prefix | ({} if row is None else {"webhooks_id": row.uid}))


def press(client: Client, name: str, row: Any, **data: Any) -> HttpResponse:
    """Press a button, and read the page that it leads to."""
    return client.post(url_of(name, row), data, follow=True)


def read(response: HttpResponse) -> str:
    """The page as people read it."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", response.content.decode())).split())
