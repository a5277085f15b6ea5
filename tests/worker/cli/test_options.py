"""Durations and times on a command line, read the same by every command."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.cli._options import (
    DURATION_MAX,
    UsageError,
    parse_duration,
    parse_since,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        (f"{DURATION_MAX.days}d", DURATION_MAX),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, duration):
    assert parse_duration(text, "--delay") == duration


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "5 m", "1.5h", "5w", "٣s", f"{DURATION_MAX.days + 1}d", "9" * 99]
)
def test_what_is_no_duration_or_too_long_a_one_is_refused_with_the_option_s_name(text):
    with pytest.raises(UsageError, match=r"^--delay is a whole number and a unit: 90s, 5m, 2h, 1d"):
        parse_duration(text, "--delay")


def test_a_time_keeps_its_zone_or_its_lack_of_one():
    assert parse_time("2026-01-31T09:00:00+01:00", "--run-at").utcoffset() == timedelta(hours=1)
    assert parse_time("2026-01-31T09:00", "--run-at").tzinfo is None
    with pytest.raises(UsageError, match=r"^--run-at is a time like"):
        parse_time("noon", "--run-at")


def test_since_is_a_duration_back_or_a_time_in_utc():
    before = datetime.now(UTC)
    an_hour_ago = parse_since("1h", "--since")

    assert timedelta() <= an_hour_ago + timedelta(hours=1) - before < timedelta(minutes=1)
    assert parse_since("2026-01-31T09:00", "--since") == datetime(2026, 1, 31, 9, tzinfo=UTC)
    assert parse_since("2026-01-31T09:00+01:00", "--since") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    for wrong in ("yesterday", "999999999d"):
        with pytest.raises(UsageError, match=r"^--since is 30m, 2h, 7d, or a time"):
            parse_since(wrong, "--since")
