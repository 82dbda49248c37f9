"""For the tests of applications: what was fired and for whom, delivery without a worker, and receivers that misbehave."""

from djwebhooks.testing.assertions import assert_fired, assert_not_fired
from djwebhooks.testing.receiver import LOOPBACK, Conversation, Received, Receiver, answer, hang, raw, reset, slow
from djwebhooks.testing.sending import deliver, fired, make_due, outbox, payload_of, targets_of

__all__ = [
    "LOOPBACK",
    "Conversation",
    "Received",
    "Receiver",
    "answer",
    "assert_fired",
    "assert_not_fired",
    "deliver",
    "fired",
    "hang",
    "make_due",
    "outbox",
    "payload_of",
    "raw",
    "reset",
    "slow",
    "targets_of",
]
