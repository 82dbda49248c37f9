"""Pages of rows, newest first, that cost the same however many rows there are."""

import json
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from djwebhooks import encryption
from djwebhooks.exceptions import UndecryptableSecret


class NewestFirst(CursorPagination):
    """Orders by the primary key, counts nothing, and hides in its cursors how many rows other owners have."""

    ordering = "-id"
    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"
    cursor_query_param = "cursor"
    template = None

    def get_page_size(self, request: Request) -> int:
        """Return the wanted size. Raises ``ValidationError`` for one that cannot be."""
        given = request.query_params.get("page_size", str(self.page_size))
        size = int(given) if given.isascii() and given.isdigit() and len(given) <= 3 else 0
        if not 1 <= size <= self.max_page_size:
            raise ValidationError({"page_size": [f"The page size is a number from 1 to {self.max_page_size}, not {given!r}."]})
        return size

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema (OpenAPI 3.0) of a page of what *schema* describes."""
        address = {"type": "string", "nullable": True, "format": "uri"}
        properties = {"next": address, "previous": address, "results": schema}
        return {"type": "object", "properties": properties, "required": list(properties)}

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return where the wanted page begins. Raises ``ValidationError`` for a cursor that we never gave out."""
        given = request.query_params.get("cursor")
        if given is None:
            return None
        try:
            offset, reverse, position = json.loads(encryption.decrypt(given))
        except UndecryptableSecret as error:
            raise ValidationError({"cursor": ["It is not known. Take it from `next` or `previous`, or begin anew."]}) from error
        return Cursor(offset=offset, reverse=reverse, position=position)

    def encode_cursor(self, cursor: Cursor) -> str:
        """Return the address of the page that begins at *cursor*."""
        # A position is a primary key: as plain text it would tell of everybody's traffic.
        token = encryption.encrypt(json.dumps([cursor.offset, cursor.reverse, cursor.position]))
        return replace_query_param(str(self.base_url), "cursor", token)
