"""The views of the API's description: one for programs, and one for people."""

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from djwebhooks.api.openapi import describe


@login_not_required
@require_safe
def show_schema(request: HttpRequest, **_: Any) -> HttpResponse:
    """Answer with the OpenAPI document of the API beside this address."""
    return JsonResponse(describe(request.path.removesuffix("/schema/")))


@login_not_required
@require_safe
def show_page(request: HttpRequest, **_: Any) -> HttpResponse:
    """Show the document, all of it from this server."""
    header = settings.CSRF_HEADER_NAME.removeprefix("HTTP_").replace("_", "-")
    return render(request, "djwebhooks/api.html", {"csrf_header": header})
