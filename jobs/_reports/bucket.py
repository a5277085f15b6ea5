"""A bucket that speaks S3: Amazon's, MinIO's, anybody's.

`s3://bucket/prefix?region=eu-central-1&endpoint=https://minio.example:9000` says where; who we are
comes from where S3's own tools look for it (`AWS_ACCESS_KEY_ID`, a role of the machine, …).
"""

import hashlib
from datetime import timedelta
from pathlib import Path, PurePosixPath
from tempfile import gettempdir
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from jobs._reports.destination import DestinationError, Published, digest_of

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from obstore.store import ClientConfig, RetryConfig, S3Config

# Up to here an object goes up in one request, which S3 refuses when the name exists.
ONE_REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
PART_BYTES: Final = 8 * 1024 * 1024
PARTS_AT_A_TIME: Final = 2
REQUEST_TIMEOUT: Final = timedelta(seconds=60)
TIMEOUT: "Final[ClientConfig]" = {"connect_timeout": "5s", "timeout": REQUEST_TIMEOUT}
RETRIES: "Final[RetryConfig]" = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}

CONTENT_TYPES: Final = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class Bucket:
    """A bucket, and a prefix in it."""

    def __init__(self, parts: "SplitResult") -> None:
        options = dict(parse_qsl(parts.query))
        unknown = sorted(set(options) - {"endpoint", "region"})
        if unknown or not parts.netloc:
            raise DestinationError(
                "TELLER_REPORTS_URL: a bucket is s3://bucket/prefix, "
                f"with ?region= and ?endpoint= where needed{_not(unknown)}"
            )
        self._prefix = parts.path.strip("/")
        self._url = f"s3://{parts.netloc}"
        config: S3Config = {}
        if "endpoint" in options:
            config["endpoint"] = options["endpoint"]
        if "region" in options:
            config["region"] = options["region"]
        plain_http = options.get("endpoint", "").startswith("http://")
        self._store = S3Store(
            parts.netloc,
            config=config,
            client_options={**TIMEOUT, "allow_http": plain_http},
            retry_config=RETRIES,
        )

    def workspace(self) -> Path:
        """Return a folder of this machine's temporary ones."""
        return Path(gettempdir()) / "teller-reports"

    def publish(self, file: Path, name: str) -> Published:
        """Put the file under the name in one go; what is there already stays.

        A large file goes up in parts, which S3 joins at once and under no condition: two runs of
        one job that pass the look at the same moment both do so, with the same bytes.
        """
        key = str(PurePosixPath(self._prefix, name))
        url = f"{self._url}/{key}"
        sha256, size = digest_of(file)
        attributes = {"Content-Type": CONTENT_TYPES[Path(name).suffix]}
        if size > ONE_REQUEST_BYTES_MAX:
            if self._exists(key):
                return Published(url, *self._digest_of(key))
            obstore.put(
                self._store,
                key,
                file,
                attributes=attributes,
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_A_TIME,
            )
            return Published(url, sha256, size)
        try:
            obstore.put(
                self._store, key, file, attributes=attributes, mode="create", use_multipart=False
            )
        except AlreadyExistsError:
            return Published(url, *self._digest_of(key))
        return Published(url, sha256, size)

    def _exists(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _digest_of(self, key: str) -> tuple[str, int]:
        digest = hashlib.sha256()
        size = 0
        for chunk in obstore.get(self._store, key).stream():
            digest.update(chunk)
            size += len(chunk)
        return digest.hexdigest(), size


def _not(unknown: list[str]) -> str:
    return f", and without {', '.join(unknown)}" if unknown else ""
