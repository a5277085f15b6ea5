"""What may be asked for, and which moments a period of days begins and ends at."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.build_report import BuildReport, midnights_of, period_of

ACCOUNT = str(uuid4())
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def wish(**fields):
    return BuildReport.from_wire({"report": "trial_balance", "format": "csv", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"report": "account_statement"}, "needs an account"),
        ({"account": ACCOUNT}, "leave account out"),
        (
            {"report": "account_statement", "account": ACCOUNT, "currency": "EUR"},
            "leave currency out",
        ),
        ({"report": "gossip"}, "account_statement"),
        ({"format": "docx"}, "'csv', 'json', 'xlsx' or 'pdf'"),
        ({"first_day": "2026-11-02", "last_day": "2026-11-01"}, "first_day is after last_day"),
        ({"first_day": "2026-02-30"}, "first_day"),
        ({"first_day": 20261101}, "first_day"),
        ({"last_day": "9999-12-31"}, "2999-12-31"),
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"timezone": "../../etc/passwd"}, "IANA"),
        ({"timezone": "Europe"}, "IANA"),
        ({"timezone": ""}, "at least 1 character"),
        ({"currency": "eur"}, "pattern"),
        ({"colour": "blue"}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_and_says_why(fields, message):
    with pytest.raises(ValidationError, match="(?s)" + message.replace("(", r"\(")):
        wish(**fields)


def test_a_wish_survives_the_way_over_the_wire():
    one = wish(first_day="2026-11-01", last_day="2026-11-30", timezone="Europe/Berlin")
    assert BuildReport.from_wire(one.to_wire()) == one
    assert one.to_wire()["first_day"] == "2026-11-01"


def test_without_days_a_report_is_about_everything_until_it_was_accepted():
    period = period_of(wish(), accepted_at=NOON)
    assert (period.start, period.end) == (None, NOON + MILLISECOND)


@pytest.mark.parametrize(
    ("zone", "first", "last", "start", "end"),
    [
        ("UTC", "2026-11-01", "2026-11-01", "2026-11-01T00:00Z", "2026-11-02T00:00Z"),
        ("Europe/Berlin", "2026-10-25", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("Asia/Kolkata", "2026-11-01", "2026-11-02", "2026-10-31T18:30Z", "2026-11-02T18:30Z"),
        # Beirut's clocks go from 0:00 to 1:00: the day begins where the night is cut.
        ("Asia/Beirut", "2026-03-29", "2026-03-29", "2026-03-28T22:00Z", "2026-03-29T21:00Z"),
        # Havana's go from 1:00 back to 0:00: the day begins at the first of both midnights.
        ("America/Havana", "2026-11-01", "2026-11-01", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
    ],
)
def test_days_are_days_of_the_time_zone(zone, first, last, start, end):
    period = period_of(wish(first_day=first, last_day=last, timezone=zone), accepted_at=NOON)
    assert period.start == datetime.fromisoformat(start)
    assert period.end == datetime.fromisoformat(end)


def test_a_day_that_is_not_over_ends_when_the_job_was_accepted():
    period = period_of(wish(last_day="2026-11-24"), accepted_at=NOON)
    assert period.end == NOON + MILLISECOND


ZONES = ("UTC", "Europe/Berlin", "Asia/Beirut", "America/Havana", "Pacific/Apia", "Asia/Kathmandu")


@given(
    st.dates(datetime(2000, 1, 1).date(), datetime(2026, 11, 1).date()),  # noqa: DTZ001 - days
    st.integers(0, 800),
    st.sampled_from(ZONES),
)
def test_the_days_of_a_volume_follow_each_other_and_fill_the_period(first, days, zone):
    asked = wish(
        report="transfer_volume",
        first_day=first.isoformat(),
        last_day=(first + timedelta(days=days)).isoformat(),
        timezone=zone,
    )
    period = period_of(asked, accepted_at=NOON)
    midnights = midnights_of(asked, period)

    assert midnights[1] == period.start
    assert midnights[-1] == period.end
    lengths = [after - before for before, after in pairwise(midnights)]
    # Samoa once left a whole day out.
    assert all(timedelta(0) <= length <= timedelta(hours=25) for length in lengths)


def test_a_volume_without_a_first_day_is_about_thirty_days():
    asked = wish(report="transfer_volume", last_day="2026-10-31")
    midnights = midnights_of(asked, period_of(asked, accepted_at=NOON))
    assert len(midnights) == 32
    assert midnights[1] == datetime(2026, 10, 2, tzinfo=UTC)
