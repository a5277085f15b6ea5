"""Times and lengths of time as a person reads them on a terminal."""

from datetime import datetime, timedelta


def short_time(at: datetime, now: datetime) -> str:
    """Return a time as a person reads it here: the clock's today, else the day as well.

    Args:
        at: the time.
        now: the present time, in the time zone of the reader.
    """
    local = at.astimezone(now.tzinfo)
    if local.date() == now.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%d %b %H:%M}" if local.year == now.year else f"{local:%Y-%m-%d}"


def short_span(span: timedelta) -> str:
    """Return a length of time in its two largest units, or in milliseconds.

    >>> [short_span(timedelta(seconds=seconds)) for seconds in (0.0482, 9.64, 75, 93_780)]
    ['48 ms', '9.6 s', '1m 15s', '1d 2h']
    """
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, hours = divmod(int(seconds), 60)[0], int(seconds) // 3_600
    if hours == 0:
        return f"{minutes}m {int(seconds) % 60}s"
    if hours < 24:  # noqa: PLR2004 - a day
        return f"{hours}h {minutes % 60}m"
    return f"{hours // 24}d {hours % 24}h"
