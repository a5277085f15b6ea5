"""Hostile messages, composed of parts: an id, a score, a body, keys beside it, and noise.

Each part is drawn for itself, half of them as they should be, so that oddities meet in all ways.
What is drawn is a recipe; `Message` makes Redis' commands of it, with an id of its own.
"""

import json
import pickle
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

Command = tuple[bytes | str | int, ...]
"""One command for Redis, word by word."""

SANE: Final = "as it should be"

QUARANTINE: Final = "arq:queue:quarantine"
MINUTE_MS: Final = 60_000
LONG_LEASE_MS: Final = 3_600_000
YEAR_MS: Final = 366 * 24 * 3_600_000

IDS: Final[tuple[tuple[str, str | bytes], ...]] = (
    ("not UTF-8", b"\xff\xfe%d"),
    ("not UTF-8", b"\x80%d" + b"\x80" * 5_000),
    ("a surrogate", b"%d-\xed\xa0\x80"),
    ("cut UTF-8", b"%d-\xe2\x82"),
    ("U+0000", "%d-\x00-"),
    ("control characters", "%d\r\n\x1b[31m\x7f"),
    ("a path", "../../%d"),
    ("right to left", "\u202e%d\u200b\ufeff"),
    ("60,000 bytes", "%d" + "x" * 60_000),
    ("70,000 bytes", "%d" + "x" * 70_000),
    ("a UUID in braces", "{uuid}"),
    ("a UUID as URN", "urn:uuid"),
    ("a UUID in capitals", "UUID"),
    ("like a key", "arq:job:%d"),
)
"""What is odd, and the pattern; `%d` becomes the message's number."""

SCORES: Final[tuple[bytes, ...]] = (
    *(b"-inf", b"+inf", b"inf", b"nan", b"1e300", b"-1e300", b"1.7976931348623157e308"),
    *(b"4.9e-324", b"-0", b"0", b"1", b"-5", b"0.5", b"9007199254740993", b"-9007199254740993"),
    *(b"1e17", b"9223372036854775807", b"18446744073709551616"),
)
"""Beside milliseconds, microseconds and nanoseconds around now."""


def either(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw from each as often; `one_of` draws as often from each branch of their branches."""
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy)


JUNK_TEXT: Final = st.text(max_size=12) | st.sampled_from(
    ["", "\x00", "\ud800", "\udfff\ud800", "e\u0301", "\u202e", "1", "null", "k" * 300]
)
JUNK: Final = either(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**63, -(2**63) - 1, 10**400, -1]),
    st.floats(),
    JUNK_TEXT,
    st.recursive(
        st.none() | st.integers(0, 9) | JUNK_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JUNK_TEXT, inner, max_size=3),
        max_leaves=6,
    ),
)

NUMBERS: Final = ("NaN", "1e400", "-0", "1" * 400, '"\\ud800"', "1e-400")
"""In the place of one."""
MSGPACK: Final = b"\x85\xa1t\xc0\xa1f\xabsend_letter\xa1a\x90\xa1k\x80\xa2et\xcb" + bytes(8)
KINDS: Final = ("send_letter", "send_card", "repeat_value", "malformed", "teller.malformed")
OWN_KINDS: Final = ("teller.unknown_kind", "teller.from_record")
"""Functions that the worker keeps for itself."""

COUNTS: Final = (
    *("", "abc", "-7", "0", "1e3", " 5", "5\n", "0x10", "nan", "9223372036854775807"),
    *("99999999999999999999", "999999", "1000001", "\x00", "1.5"),
)
"""Where a whole number belongs."""
FEW: Final = ("1", "2", "3", "5")


@dataclass(frozen=True, slots=True)
class Key:
    """A key beside a job, or one that all jobs share, in the shape that it is planted in."""

    name: str
    """`arq:retry:` for one beside a job; the whole name for a shared one."""
    shape: str
    """`string`, or another of Redis' types."""
    value: bytes | str
    ttl_ms: int | None = None

    @property
    def label(self) -> str:
        """What is odd, for the table."""
        odd = "odd text" if self.shape == "string" else "another type"
        return f"key {self.name.rstrip(':')}: {odd}"

    def commands(self, suffix: bytes = b"") -> list[Command]:
        """Return the commands that plant it, whatever was there, but for a quarantine's entries."""
        key = self.name.encode() + suffix
        if self.name == QUARANTINE and self.shape == "string":
            return [("SET", key, self.value, "NX")]
        write: Command
        match self.shape:
            case "string":
                write = ("SET", key, self.value)
            case "hash":
                write = ("HSET", key, "field", self.value)
            case "list":
                write = ("RPUSH", key, self.value)
            case "set":
                write = ("SADD", key, self.value)
            case "zset":
                write = ("ZADD", key, "-inf", self.value, "inf", b"\xff")
            case _:
                write = ("XADD", key, "*", "field", self.value)
        expiry: list[Command] = [] if self.ttl_ms is None else [("PEXPIRE", key, self.ttl_ms)]
        return [*([] if self.name == QUARANTINE else [("DEL", key)]), write, *expiry]


OTHER_TYPES: Final = st.sampled_from(["hash", "list", "set", "zset", "stream"])
ODD_BYTES: Final = st.binary(max_size=8) | st.sampled_from(COUNTS)


def _of_another_type(name: str) -> st.SearchStrategy[Key]:
    return st.builds(Key, st.just(name), OTHER_TYPES, ODD_BYTES)


def _odd_text(name: str, *more: str) -> st.SearchStrategy[Key]:
    return st.builds(Key, st.just(name), st.just("string"), st.sampled_from(COUNTS + more))


LEASES: Final = either(
    # Of a stock worker, and of another of ours; the longest outlives the batch.
    st.builds(
        Key,
        st.just("arq:in-progress:"),
        st.just("string"),
        st.sampled_from(["1", "elsewhere:1:abc", "ended"]),
        st.sampled_from([1, 200, 1_000, LONG_LEASE_MS]),
    ),
    # Nobody's: a lease always has an end.
    st.builds(
        Key,
        st.just("arq:in-progress:"),
        st.just("string"),
        st.sampled_from(["1", "elsewhere:1:abc", ""]),
    ),
)
SIDE_KEYS: Final = either(
    LEASES,
    *(
        _of_another_type(f"arq:{name}:")
        for name in ("in-progress", "retry", "claims", "unknown", "result")
    ),
    _odd_text("arq:retry:", *FEW),
    _odd_text("arq:claims:", *FEW),
    _odd_text("arq:unknown:", "1", "1700000000000", "99999999999999"),
    _odd_text("arq:result:"),
)
TOLERATED_SIDE_KEYS: Final = either(
    *(_of_another_type(f"arq:{name}:") for name in ("in-progress", "retry", "claims", "unknown")),
    *(
        st.builds(
            Key, st.just(name), st.just("string"), st.sampled_from(["", "abc", "-7", "1e3", "\x00"])
        )
        for name in ("arq:retry:", "arq:claims:")
    ),
)
"""Keys that must not even keep the job beside them from running."""

SHARED_KEYS: Final = either(
    *(
        _of_another_type(name) | _odd_text(name)
        for name in (
            "arq:queue:bell",
            "arq:abort",
            QUARANTINE,
            "arq:queue:epoch",
            "arq:queue:rebuild",
            "arq:queue:rebuild:position",
            "arq:queue:health-check",
        )
    ),
)
"""The queue itself is not among them: to plant another key there throws away what waits in it."""


@dataclass(frozen=True, slots=True)
class Body:
    """A job's body, or a key in its place that is none."""

    label: str
    key: Key | None
    """None: there is no body."""


def _text(label: str, body: bytes) -> Body:
    return Body(label, Key("arq:job:", "string", body))


def _sane_fields(number: int, now_ms: int) -> dict[str, Any]:
    letter = {"address": f"{number} Hostile Street", "pages": 1}
    return {"t": None, "f": "send_letter", "a": [letter], "k": {}, "et": now_ms}


def _sane_body(number: int, now_ms: int) -> Body:
    return _text(SANE, json.dumps(_sane_fields(number, now_ms)).encode())


@dataclass(frozen=True, slots=True)
class OddFields:
    """A body in JSON with some fields replaced, or left out."""

    fields: tuple[tuple[str, Any], ...]
    without: str

    def __call__(self, number: int, now_ms: int) -> Body:
        body = {**_sane_fields(number, now_ms), **dict(self.fields)}
        body.pop(self.without, None)
        odd = sorted({name for name, _ in self.fields} | {self.without} - {""})
        return _text(f"body: field {odd[0] if len(odd) == 1 else 's'}", json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class Shaped:
    """A sane body, changed as a whole."""

    label: str
    how: str
    size: int = 0

    def __call__(self, number: int, now_ms: int) -> Body:
        fields = _sane_fields(number, now_ms)
        return _text(f"body: {self.label}", _shaped(self.how, self.size, fields))


def _shaped(how: str, size: int, fields: dict[str, Any]) -> bytes:
    sane = json.dumps(fields).encode()
    if how in NUMBERS:
        return sane.replace(b'"pages": 1', b'"pages": ' + how.encode())
    made: dict[str, Callable[[], bytes]] = {
        "pickle": lambda: pickle.dumps(fields),
        "msgpack": lambda: MSGPACK,
        "utf-16": lambda: sane.decode().encode("utf-16"),
        "bom": lambda: b"\xef\xbb\xbf" + sane,
        "cut": lambda: sane[: size % len(sane)],
        "twice": lambda: sane + sane,
        "nested": lambda: sane.replace(b'"pages": 1', b'"pages": ' + b"[" * size + b"]" * size),
        "nested outside": lambda: b'{"a":' * size + sane + b"}" * size,
        "nested open": lambda: b"[" * size,
        "long text": lambda: json.dumps({**fields, "a": [{"address": "x" * size}]}).encode(),
        "long value": lambda: _repeat("\u00e9" * size, fields),
        "long garbage": lambda: b"\x00\xff" * (size // 2),
        "U+0000": lambda: _repeat("\x00", fields),
    }
    return made[how]()


def _repeat(value: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({**fields, "f": "repeat_value", "a": [{"value": value}]}).encode()


@dataclass(frozen=True, slots=True)
class Given:
    """A body that does not depend on the message."""

    body: Body

    def __call__(self, _number: int, _now_ms: int) -> Body:
        return self.body


LONG_NAMES: Final = st.integers(1, 3).map(
    lambda seed: "".join(sha256(f"{seed} {n}".encode()).hexdigest() for n in range(200))
)
"""12,800 letters that no index can compress."""
TIMES_MS: Final = either(
    st.integers(),
    JUNK,
    st.sampled_from(
        [1_700_000_000_000_000, -1, 253_402_300_799_999, 253_402_300_800_000, -(10**15), 10**18]
    ),
)
ARGUMENTS: Final = either(
    JUNK,
    st.lists(JUNK, max_size=2),
    JUNK.map(lambda value: [{"value": value}]),
    JUNK.map(lambda value: [{"address": value, "pages": 1}]),
    JUNK.map(lambda value: [{"address": "12 High Street", "pages": value}]),
)
FIELD: Final = either(
    st.tuples(st.just("f"), st.sampled_from(KINDS + OWN_KINDS) | JUNK | LONG_NAMES),
    st.tuples(st.just("t"), JUNK | st.sampled_from([999_999, 1_000_001, 10**12])),
    st.tuples(st.just("et"), TIMES_MS),
    st.tuples(st.just("a"), ARGUMENTS),
    st.tuples(st.just("k"), JUNK),
)
ODD_BODIES: Final = either(
    st.builds(
        OddFields,
        st.lists(FIELD, min_size=1, max_size=3).map(tuple),
        st.sampled_from(["", "", "", "", "f", "t", "et", "a", "k"]),
    ),
    st.builds(
        Shaped,
        st.just("no JSON"),
        st.sampled_from(["pickle", "msgpack", "utf-16", "bom", "cut", "twice"]),
        st.integers(0, 200),
    ),
    st.builds(
        Shaped,
        st.just("deep"),
        st.sampled_from(["nested", "nested outside", "nested open"]),
        st.integers(1, 1_200) | st.sampled_from([255, 256, 1_023, 1_024, 20_000]),
    ),
    st.builds(
        Shaped,
        st.just("odd numbers and texts"),
        st.sampled_from((*NUMBERS, "U+0000")),
    ),
    st.binary(max_size=60).map(lambda body: Given(_text("body: random bytes", body))),
    JUNK.map(lambda value: Given(_text("body: other JSON", json.dumps(value).encode()))),
    st.just(Given(Body("body: missing", None))),
    _of_another_type("arq:job:").map(lambda key: Given(Body("body: another type", key))),
)
LARGE_BODIES: Final = st.builds(
    Shaped,
    st.just("large"),
    st.sampled_from(["long text", "long value", "long garbage"]),
    st.sampled_from([65_537, 140_000, 262_145, 1_048_577]),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One member of the queue with all that belongs to it, before it has a number."""

    job_id: tuple[str, str | bytes] | None
    """What is odd about the id, and its pattern; None: nothing."""
    score: bytes | int | None
    """As Redis reads it, or milliseconds from now; None: now."""
    body: Any
    side_keys: tuple[Key, ...]
    aborted: bytes | int | None
    """When a client aborted it; None: never."""

    def id_of(self, number: int) -> bytes:
        """Return the id in the queue."""
        if self.job_id is None:
            return b"hostile-%d" % number
        pattern = self.job_id[1]
        match pattern:
            case "{uuid}":
                return f"{{{UUID(int=number)}}}".encode()
            case "urn:uuid":
                return UUID(int=number).urn.encode()
            case "UUID":
                return str(UUID(int=0xABCDEF << 96 | number)).upper().encode()
            case bytes():
                return pattern % number
        return (pattern % number).encode()

    def commands(self, number: int, now_ms: int) -> tuple[list[Command], list[str]]:
        """Return the commands that plant it, its queue entry last, and what is odd about it."""
        job_id = self.id_of(number)
        body: Body = self.body(number, now_ms)
        commands: list[Command] = body.key.commands(job_id) if body.key else []
        labels = [body.label] if body.label != SANE else []
        if self.job_id is not None:
            labels.append(f"id: {self.job_id[0]}")
        for key in self.side_keys:
            commands += key.commands(job_id)
            labels.append(key.label)
        if self.aborted is not None:
            commands.append(("ZADD", "arq:abort", _time(self.aborted, now_ms), job_id))
            labels.append("aborted: at an odd time")
        if self.score is not None:
            labels.append("score: odd")
        commands.append(("ZADD", "arq:queue", _time(self.score or 0, now_ms), job_id))
        return commands, labels or ["nothing odd"]


def _time(at: bytes | int, now_ms: int) -> bytes | int:
    return at if isinstance(at, bytes) else now_ms + at


TIMES: Final = either(
    st.sampled_from(SCORES),
    st.sampled_from([-YEAR_MS, -MINUTE_MS, -1, 200, YEAR_MS, 1_700_000_000_000_000]),
    st.floats(allow_nan=False).map(lambda value: repr(value).encode()),
)
SOMETIMES: Final = st.integers(0, 4)


def _sometimes(odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw something odd in one case of five."""
    return SOMETIMES.flatmap(lambda number: st.none() if number else odd)


MESSAGES: Final = st.builds(
    Message,
    _sometimes(st.sampled_from(IDS)),
    _sometimes(TIMES),
    st.integers(0, 99).flatmap(
        lambda number: (
            ODD_BODIES if number < 88 else LARGE_BODIES if number < 90 else st.just(_sane_body)
        )
    ),
    SOMETIMES.flatmap(
        lambda n: st.just(()) if n else st.lists(SIDE_KEYS, min_size=1, max_size=3)
    ).map(tuple),
    _sometimes(TIMES),
)


@dataclass(frozen=True, slots=True)
class Noise:
    """Commands that concern no job."""

    label: str
    planted: tuple[Command, ...]


def _ring(name: str, score: bytes, member: bytes) -> Noise:
    return Noise(name, (("ZADD", "arq:queue:bell", score, member),))


NOISE: Final = either(
    SHARED_KEYS.map(lambda key: Noise(key.label, tuple(key.commands()))),
    st.builds(
        lambda at, job_id: Noise(
            "abort of no job", (("ZADD", "arq:abort", at, b"nobody-" + job_id),)
        ),
        st.sampled_from(SCORES),
        st.binary(max_size=6),
    ),
    st.builds(
        lambda channel, text: Noise("a message to a channel", (("PUBLISH", channel, text),)),
        st.sampled_from(["arq:queue", "arq:queue:bell", "teller", "__keyevent@0__:del"]),
        st.binary(max_size=20),
    ),
    st.builds(_ring, st.just("odd rings"), st.sampled_from(SCORES), st.binary(max_size=8)),
    st.builds(
        lambda field, value: Noise(
            "quarantine: odd entries", (("HSET", QUARANTINE, f"odd-{field}", json.dumps(value)),)
        ),
        st.integers(0, 9),
        st.fixed_dictionaries(
            {
                "id": st.sampled_from(["", "00", "ff", "6869", "6"]) | JUNK,
                "reason": st.just("why") | JUNK,
                "at_ms": st.just("1700000000000") | JUNK,
                "type": st.just("string") | JUNK,
                "body": st.sampled_from(["", "00"]) | JUNK,
                "size": st.just(1) | JUNK,
            }
        ),
    ),
    st.builds(
        lambda field, value: Noise(
            "quarantine: odd entries", (("HSET", QUARANTINE, field, value),)
        ),
        st.sampled_from(["dropped"]) | st.binary(min_size=1, max_size=6),
        st.sampled_from(["abc", "", "-1", "{}", "[]", "null", '{"id": "zz"}'])
        | st.binary(max_size=12),
    ),
    st.sampled_from(["SCRIPT", "FUNCTION"]).map(
        lambda name: Noise("scripts are forgotten", ((name, "FLUSH"),))
    ),
)
"""What is drawn for one message in thirty."""

RECIPES: Final[st.SearchStrategy[Message | Noise]] = st.integers(0, 29).flatmap(
    lambda number: MESSAGES if number else NOISE
)
