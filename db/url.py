"""DATABASE_URL, as libpq writes it; what the driver reads in it, the driver reads.

    postgresql://user:pass%40word@one:5432,two:5432/name?sslmode=verify-full&sslrootcert=/ca.pem
    postgresql:///name?host=/run/postgresql

A parameter that would be ignored is refused instead: whoever wrote it meant something by it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

_BY_THE_DRIVER: Final = frozenset(
    {"host", "port", "user", "password", "passfile", "dbname", "service", "target_session_attrs"}
    | {"sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"}
)
_BY_THE_SERVER: Final = frozenset({"application_name", "options"})
_HERE: Final = frozenset({"connect_timeout", "fallback_application_name", "ssl"})

_AS_IT_IS: Final = {
    "channel_binding": ("prefer", "disable"),
    "client_encoding": ("utf8", "auto"),
    "gssencmode": ("prefer", "disable"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
"""Values that ask for what is so in any case. Others of these names are refused."""

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")

_FORM: Final = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?:(?P<user>[^/?]*)@)?(?P<hosts>[^/?@]*)"
    r"(?:/(?P<name>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_TIMEOUT_MIN_S: Final = 2
"""As libpq takes one second."""


class DatabaseUrlError(ValueError):
    """The URL says what cannot be had; the message names the parameter, and no value."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says, for the driver."""

    dsn: str
    """For `asyncpg.connect`, which reads hosts, names, passwords and certificates out of it."""
    connect_timeout_s: float | None
    """None: it is not said."""
    application_name: str | None


def read_url(url: str) -> Address:
    """Return what a PostgreSQL URL says.

    Raises:
        DatabaseUrlError: it is no such URL, or has a parameter that nobody here follows.
    """
    form = _FORM.fullmatch(url)
    if form is None:
        raise DatabaseUrlError("it is not like postgresql://user@host:5432/name")
    said = dict(_parameters(form["query"] or ""))
    _require_known(said)
    _require_files(said)
    if "ssl" in said:
        said.setdefault("sslmode", said["ssl"])
    named = said.get("application_name") or said.get("fallback_application_name")
    passed = {name: said[name] for name in said if name in _BY_THE_DRIVER or name == "options"}
    query = "&".join(f"{name}={_encoded(value)}" for name, value in passed.items())
    user = f"{_user(form['user'])}@" if form["user"] else ""
    return Address(
        dsn=f"postgresql://{user}{form['hosts']}/{_encoded(unquote(form['name'] or ''))}"
        + (f"?{query}" if query else ""),
        connect_timeout_s=_seconds(said.get("connect_timeout")),
        application_name=named,
    )


def check_url(url: str) -> str:
    """Return the URL as it is.

    Raises:
        DatabaseUrlError: see `read_url`.
    """
    read_url(url)
    return url


def _parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters; a plus is a plus in libpq's, and no space."""
    pairs = []
    for part in filter(None, query.split("&")):
        name, sign, value = part.partition("=")
        if not sign:
            raise DatabaseUrlError(f"{unquote(name)} has no value")
        pairs.append((unquote(name), unquote(value)))
    return pairs


def _require_known(said: dict[str, str]) -> None:
    known = _BY_THE_DRIVER | _BY_THE_SERVER | _HERE | _AS_IT_IS.keys()
    unknown = sorted(said.keys() - known)
    if unknown:
        raise DatabaseUrlError(
            f"the driver does not know {', '.join(unknown)}: take it out of DATABASE_URL; "
            f"it knows {', '.join(sorted(known))}"
        )
    for name in sorted(said.keys() & _AS_IT_IS.keys()):
        if said[name].lower().replace("-", "") not in _AS_IT_IS[name]:
            allowed = " or ".join(_AS_IT_IS[name])
            raise DatabaseUrlError(f"the driver cannot follow {name} unless it is {allowed}")


def _require_files(said: dict[str, str]) -> None:
    """A file that is missing is no server that is away: waiting would not help."""
    for name in _FILES:
        if name in said and not Path(said[name]).is_file():
            raise DatabaseUrlError(f"{name} names a file that is not there")


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    if re.fullmatch("[0-9]+", value) is None or int(value) == 0:
        raise DatabaseUrlError("connect_timeout is a whole number of seconds, from 1 on")
    return max(int(value), _TIMEOUT_MIN_S)


def _user(given: str) -> str:
    name, sign, password = given.partition(":")
    return _encoded(unquote(name)) + sign + _encoded(unquote(password))


def _encoded(text: str) -> str:
    return quote(text, safe="")
