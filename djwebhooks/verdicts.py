"""Make outcomes of replies: what was sent and answered, and what that means for the delivery."""

import logging
from datetime import datetime, timedelta

from djwebhooks import retry, tokens
from djwebhooks.authentication.base import TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.database import clean_text
from djwebhooks.handshake import Handshake
from djwebhooks.models.deliveries import Status
from djwebhooks.models.keyring import UNKNOWN_KEY
from djwebhooks.transports.base import Reply
from djwebhooks.work import Flight, Outcome, Sent

logger = logging.getLogger(__name__)

#: Seconds that a lane rests at least, and at most unless its receiver wants more, after what it needs was asked for in vain.
SHORTEST_REST, LONGEST_REST = 5.0, 300.0

#: Client errors that are about the moment and not about the request.
SAYS_NOTHING = frozenset({408, 425, 429})


def judge(flight: Flight, reply: Reply, now: datetime) -> Outcome:
    """Return what a reply means for its delivery."""
    work, target = flight.work, flight.target
    sent = _sent(reply, flight.url, flight.started_at)
    if tokens.is_refused(flight, reply) and work.reason != retry.TOKEN_REFUSED:
        # It may have been revoked. With a new one it is tried once more, as if this had not been.
        return Outcome(work, Status.PENDING, retry.TOKEN_REFUSED, due_at=now, sent=sent, counts=False)
    if retry.is_plain_success(reply) and not work.only_key:
        return Outcome(work, retry.SUCCEEDED, sent=sent)
    schedule = conf.RETRY_SCHEDULE if target.retry_schedule is None else target.retry_schedule
    done = work.attempt_count - work.schedule_offset
    try:
        verdict = retry.judge(
            reply, retries_done=done, schedule=schedule, own_faults=work.schedule_offset, give_up_on=conf.GIVE_UP_ON, now=now
        )
    except (TypeError, ValueError):
        logger.exception("delivery=%s: its answer cannot be judged. Is the schedule %r right?", work.delivery_id, schedule)
        verdict = retry.judge_own_fault("internal_error", work.schedule_offset)
    due_at = None if verdict.delay is None else now + timedelta(seconds=verdict.delay)
    if due_at is not None and work.expires_at is not None:
        due_at = min(due_at, work.expires_at)
    outcome = Outcome(
        work,
        verdict.status,
        verdict.reason,
        due_at=due_at,
        sent=sent,
        counts=verdict.counts,
        hold_until=now + timedelta(seconds=verdict.hold) if verdict.hold else None,
        disables=verdict.disables,
    )
    is_check = work.only_key and verdict.counts
    return _judge_check(outcome, reply) if is_check else outcome


def rest(outcome: Outcome, asked: TokenAuthentication | Handshake, reply: Reply, now: datetime) -> Outcome:
    """Return *outcome*, of a delivery that has *asked* for a token or a permission in vain, with a pause for its whole lane.

    Nearly all others would only ask the same. They wait as long as that delivery does, or as *reply* wants it, but never for
    very long, as new ones may come; only a receiver, who is asked for its permission, may want that. Where nobody could be
    asked, at a forbidden address, nobody needs a pause.
    """
    if reply.error in retry.HOPELESS:
        return outcome
    delay = 0.0 if outcome.due_at is None else (outcome.due_at - now).total_seconds()
    wanted = retry.hold_of(reply, now)
    # A sender may send other events elsewhere, where no token is shown: what its server wants is not for these.
    longest = max(LONGEST_REST, wanted) if isinstance(asked, Handshake) else LONGEST_REST
    seconds = max(SHORTEST_REST, min(max(delay, wanted), longest))
    return outcome._replace(hold_until=now + timedelta(seconds=seconds))


def _judge_check(outcome: Outcome, reply: Reply) -> Outcome:
    """Return what a reply to a key check means: it ends at once, and says nothing about the target's health.

    It succeeded if the receiver did what it should: accept the newest key, and refuse one that it cannot know.
    """
    answer, reason = _answer_to_key(reply), retry.describe(reply)
    is_unknown = outcome.work.only_key == UNKNOWN_KEY
    is_right = answer == ("refused" if is_unknown else "accepted")
    if answer == "accepted":
        reason = "unknown_key_accepted" if is_unknown else ""
    elif is_right:
        reason = "unknown_key_refused"
    status = Status.SUCCEEDED if is_right else Status.FAILED
    return Outcome(outcome.work, status, reason, sent=outcome.sent, counts=False, key_answer=answer)


def _answer_to_key(reply: Reply) -> str:
    """What a receiver says about a signature; a server error, or a wish for a pause, says nothing."""
    if reply.error or reply.status is None or reply.status in SAYS_NOTHING:
        return ""
    return {2: "accepted", 4: "refused"}.get(reply.status // 100, "")


def _sent(reply: Reply, url: str, started_at: datetime) -> Sent:
    timing = reply.timing
    return Sent(
        url=url,
        started_at=started_at,
        duration=reply.duration,
        status_code=reply.status,
        response_headers={clean_text(name): clean_text(value) for name, value in reply.headers.items()},
        response_body=clean_text(reply.body.decode(errors="replace")),
        error=reply.error,
        detail=clean_text(reply.detail),
        address=reply.address,
        lookup_ms=timing.lookup_ms,
        connect_ms=timing.connect_ms,
        tls_ms=timing.tls_ms,
        first_byte_ms=timing.first_byte_ms,
    )
