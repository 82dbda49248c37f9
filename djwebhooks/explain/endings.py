"""Why deliveries end, in words for owners and staff."""

from djwebhooks import retry
from djwebhooks.models.deliveries import COALESCED, FILTERED

#: Why a delivery ended, where the word alone says too little.
ENDINGS = {
    COALESCED: "a newer event has taken its place",
    FILTERED: "the filters do not let it through",
    "cancelled": "somebody cancelled it",
    "build_error": "what it was to say could not be written",
    "expired": "it was not sent in time",
    "held_too_long": "it was held for too long",
    "key_retired": "the key that was to sign it is no longer in use",
    "replay_cancelled": "it was to be sent again, and that was cancelled",
    retry.ABORT_MESSAGE: "the receiver asked not to be sent it again",
    retry.DISABLED_BY_RECEIVER: "the receiver asked not to be sent anything more",
    retry.GAVE_UP: "the receiver answered that there is no use in trying again",
    retry.GONE: "the receiver answered 410 Gone",
    retry.SCHEDULE_EXHAUSTED: "the last retry failed, too",
}
