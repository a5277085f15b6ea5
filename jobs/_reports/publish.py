"""Which of the destinations a URL means."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from jobs._reports.destination import Destination, DestinationError
from jobs._reports.directory import Directory


def destination_of(url: str) -> Destination:
    """Return where a URL points.

    Raises:
        DestinationError: neither to a directory nor to a bucket; the message says what would.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Directory(Path(url2pathname(parts.path)))
    if parts.scheme == "s3":
        from jobs._reports.bucket import Bucket  # its library is large; a directory needs none

        return Bucket(parts)
    raise DestinationError(
        "TELLER_REPORTS_URL: give a directory like file:///var/lib/teller/reports, "
        "or a bucket like s3://bucket/prefix"
    )
