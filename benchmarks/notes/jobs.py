"""What the hand-written systems run for each delivery."""

import hashlib
import hmac
import json
import time

import requests
from django.utils import timezone

from benchmarks.notes.models import Call


def send_call(call_id: int) -> None:
    """Sign a call, send it with ``requests.post`` and record the answer."""
    call = Call.objects.select_related("endpoint").get(pk=call_id)
    body = json.dumps(call.payload).encode()
    signature = hmac.new(call.endpoint.secret.encode(), body, hashlib.sha512).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hook-Signature": signature}
    response = requests.post(call.endpoint.url, data=body, headers=headers, timeout=15)
    call.status_code, call.answer, call.finished_at = response.status_code, response.text[:1000], timezone.now()
    call.save(update_fields=["status_code", "answer", "finished_at"])
    response.raise_for_status()


def read_time() -> float:
    """Return when the job ran, by the machine's own clock."""
    return time.monotonic()
