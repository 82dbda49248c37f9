"""What was adopted, as lines for a terminal."""

import pprint
from collections.abc import Iterator

from djwebhooks.adoption import Adopted, Adoptee
from djwebhooks.words import describe_count, make_printable


def describe_adopted(adopted: Adopted, *, is_dry: bool) -> Iterator[str]:
    """Say what became, or would become, of each row; which settings are to be written; and what is different from now on."""
    would = "Would be" if is_dry else "Were"
    yield f"{adopted.package.name}: {describe_count(adopted.row_count, 'row')} in {adopted.table}."
    yield f"{'Would make' if is_dry else 'Made'} {describe_count(len(adopted.made), 'target')}{':' if adopted.made else '.'}"
    yield from (f"  {describe_target(one)}: {', '.join(one.events)}" for one in adopted.made)
    if adopted.subscribed:
        yield f"{would} subscribed to more events:"
        yield from (f"  {describe_target(one)}: {', '.join(one.events)}" for one in adopted.subscribed)
    if adopted.unchanged:
        yield f"Are there already, and stay as they are: {describe_count(len(adopted.unchanged), 'target')}."
        lacking = [one for one in adopted.unchanged if one.events]
        yield from (f"  {describe_target(one)} lacks {', '.join(one.events)}; --subscribe adds them." for one in lacking)
    if adopted.left_out:
        yield f"{would} left out:"
        yield from (f"  {make_printable(what)}: {make_printable(why, 400)}" for what, why in adopted.left_out)
    if adopted.remarks:
        yield "Take note:"
        yield from (f"  {what}: {remark}" for what, remark in adopted.remarks)
    yield from describe_rest(adopted)


def describe_target(adoptee: Adoptee) -> str:
    identifier = f" with {adoptee.identifier!r}" if adoptee.identifier else ""
    return f"{make_printable(adoptee.url)} of {make_printable(adoptee.owner)}{identifier} ({', '.join(adoptee.rows)})"


def describe_rest(adopted: Adopted) -> Iterator[str]:
    """Say what is left to do."""
    if adopted.settings:
        yield "To write into the settings:"
        for name, value in adopted.settings.items():
            yield from (f"  {line}" for line in f"{name} = {pprint.pformat(value, width=100, sort_dicts=False)}".splitlines())
    yield "From now on:"
    yield f"  Bodies are what the sender {adopted.sender!r} writes." if adopted.sender else f"  {adopted.package.bodies}"
    yield from (f"  {remark}" for remark in adopted.package.remarks)
    until = " (until then, a user who has rows in them cannot be deleted)" if adopted.package.owner_column else ""
    yield f"When its tables are not needed any more{until}:"
    yield from (f"  DROP TABLE {table};" for table in (*adopted.package.other_tables, adopted.table))
