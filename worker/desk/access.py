"""Who is at the desk and what they may: sessions, passwords, a proxy's word, a link for once.

A session is a signed cookie with an end of its own; nothing is kept on the server. Whoever comes
through a proxy has none: the proxy says who it is with every request.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from worker.errors import StartupError

if TYPE_CHECKING:
    from starlette.requests import Request

    from worker.desk.settings import DeskSettings

Role = Literal["viewer", "operator"]
ROLES: Final = ("viewer", "operator")

COOKIE: Final = "teller_desk"
LINK_LASTS_S: Final = 3_600
NAME_CHARACTERS_MAX: Final = 100
PASSWORD_CHARACTERS_MAX: Final = 1_000
SIGN_INS_MAX: Final = 10
"""Wrong passwords in `SIGN_INS_PERIOD_S`, of all together: scrypt is dear, and guesses are not."""
SIGN_INS_PERIOD_S: Final = 60.0

SCRYPT_N: Final = 2**14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever is at the desk."""

    name: str
    role: Role
    nonce: str
    """What the tokens of this session's forms are made from."""

    @property
    def may_act(self) -> bool:
        """Whether they may change anything."""
        return self.role == "operator"


def hash_password(password: str) -> str:
    """Return what a file of users keeps of a password."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)


def _fits(password: str, stored: str) -> bool:
    try:
        _, salt, digest = stored.split("$")
        return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), digest)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class User:
    """A line of the file of users."""

    name: str
    role: Role
    password: str


def read_users(path: Path) -> dict[str, User]:
    """Return the users in a file, by name.

    Raises:
        StartupError: the file cannot be read, or a line is wrong; its number is told.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise StartupError(f"TELLER_DESK_USERS: {path} cannot be read: {error}") from None
    users = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        match words:
            case [name, ("viewer" | "operator") as role, stored] if stored.startswith("scrypt$"):
                users[name] = User(name, role, stored)
            case _:
                raise StartupError(
                    f"TELLER_DESK_USERS: line {number} of {path} is not a name, `viewer` or "
                    "`operator`, and what `python -m worker desk --hash` printed"
                )
    return users


@dataclass
class Access:
    """Lets people in, and knows them again."""

    settings: "DeskSettings"
    link_role: Role = "viewer"
    """What whoever comes by the link may do."""
    clock: Callable[[], float] = time.time
    users: dict[str, User] = field(default_factory=dict)
    _key: bytes = b""
    _link: str | None = None
    _link_until: float = 0
    _refused_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the users, and make the key that sessions are signed with."""
        self._key = (self.settings.secret or secrets.token_hex(32)).encode()
        if self.settings.users:
            self.users = read_users(Path(self.settings.users))

    def new_link_token(self) -> str:
        """Return what the next link lets in, once and within an hour; the one before is void."""
        self._link, self._link_until = secrets.token_urlsafe(24), self.clock() + LINK_LASTS_S
        return self._link

    def by_link(self, token: str) -> str | None:
        """Return the session of whoever brings the link's token; None: it was used, or is none."""
        link, self._link = self._link, None
        if link is None or self.clock() > self._link_until:
            return None
        if not hmac.compare_digest(link.encode(), token.encode()):
            self._link = link
            return None
        return self._session("link", self.link_role)

    def by_password(self, name: str, password: str) -> str | None:
        """Return the session of a user; None: name or password is wrong, or too many were."""
        now = self.clock()
        self._refused_at = [at for at in self._refused_at if at > now - SIGN_INS_PERIOD_S]
        if len(self._refused_at) >= SIGN_INS_MAX or len(password) > PASSWORD_CHARACTERS_MAX:
            return None
        user = self.users.get(name)
        # As long for a name that there is not: how long it takes tells nothing.
        fits = _fits(password, user.password if user else hash_password(""))
        if user is None or not fits:
            self._refused_at.append(now)
            return None
        return self._session(user.name, user.role)

    def who(self, request: "Request") -> Operator | None:
        """Return who sends a request; None: nobody who may look."""
        if self.settings.user_header:
            return self._by_header(request.headers.get(self.settings.user_header, ""))
        return self._by_cookie(request.cookies.get(COOKIE, ""))

    def form_token(self, operator: Operator) -> str:
        """Return what every form of this session carries, and no other page can know."""
        return self._sign(f"form:{operator.name}:{operator.nonce}".encode())

    def takes_form(self, operator: Operator, token: object) -> bool:
        """Return whether a form is one of this session's."""
        expected = self.form_token(operator).encode()
        return isinstance(token, str) and hmac.compare_digest(expected, token.encode())

    def _by_header(self, name: str) -> Operator | None:
        if not 0 < len(name) <= NAME_CHARACTERS_MAX:
            return None
        operators = {one.strip() for one in self.settings.operators.split(",")}
        return Operator(name, "operator" if {"*", name} & operators else "viewer", "proxy")

    def _session(self, name: str, role: Role) -> str:
        until = self.clock() + self.settings.session_s
        content = {"name": name, "role": role, "until": until, "nonce": secrets.token_hex(8)}
        body = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{body}.{self._sign(body.encode())}"

    def _by_cookie(self, cookie: str) -> Operator | None:
        body, _, signature = cookie.partition(".")
        if not hmac.compare_digest(self._sign(body.encode()).encode(), signature.encode()):
            return None
        content = json.loads(base64.urlsafe_b64decode(body))
        if content["until"] < self.clock():
            return None
        user = self.users.get(content["name"])
        if self.settings.users and (user is None or user.role != content["role"]):
            return None  # taken from the file, or given another role, since
        return Operator(content["name"], content["role"], content["nonce"])

    def _sign(self, what: bytes) -> str:
        return hmac.new(self._key, what, hashlib.sha256).hexdigest()
