"""What a statement may do to its session, judged by its text before it is sent. Pure.

A job's statements are read for two things: whether they would end the job's transaction, and
whether the session may be another one after them. Only statements that were given to `clean` are
known to leave nothing behind. Of any other text nothing is assumed: it may call a function, or
fire a trigger, that changes settings or takes a lock of the session.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Final


class Leaves(IntEnum):
    """What may be left on the session, in the order of what it takes to be rid of it."""

    NOTHING = 0
    STATE = 1
    """Settings, locks, cursors, tables: the session can be reset."""
    NAMES = 2
    """The same, and a text may mean something else from here on: by another role or search_path."""
    TRACES = 3
    """What no reset undoes, as a loaded library; or the driver's own prepared statements are
    gone. The session must be replaced."""


class NotYoursError(RuntimeError):
    """A handler tried to begin or end its transaction: all of it belongs to the job, or none."""


CLEAN: Final[set[str]] = set()
"""What was given to `clean`."""

_ENDS: Final = frozenset({"COMMIT", "END", "ROLLBACK", "ABORT", "BEGIN", "START"})
_TRACES: Final = frozenset({"PREPARE", "DEALLOCATE", "DISCARD", "LOAD"})
_NAMES: Final = re.compile(
    r"\b(?:search_path|role|authorization|set_config|schema)\b", re.IGNORECASE
)
_SUSPECT: Final = re.compile(r"\b(?:" + "|".join(sorted(_ENDS | _TRACES)) + r")\b", re.IGNORECASE)
WORDS_LOOKED_AT: Final = 4
"""Enough for `ROLLBACK TRANSACTION TO` and `CREATE OR REPLACE FUNCTION`."""

TEXT_REMEMBERED_MAX: Final = 4_096
"""Longer statements are judged anew each time, so that the memory of judgements stays small."""

# PostgreSQL's own lexer, as far as it decides what is code: comments nest, a quote is doubled, a
# backslash escapes only in E'', a dollar quote ends with its own tag and does not begin in a word.
_TOKEN: Final = re.compile(
    r"""
      (?P<line_comment> --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<escaped> [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
    | (?P<string> '(?:[^']|'')*(?:'|\Z) )
    | (?P<quoted> "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> \$(?P<tag>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$ )
    | (?P<word> [A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]* )
    | (?P<end> ; )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


def clean(sql: str) -> str:
    """Return a statement, and remember that it leaves nothing behind on its session.

    For statements that run in every job: the session needs no reset after them.
    """
    CLEAN.add(sql)
    return sql


def judge(sql: str) -> Leaves:
    """Return what a job's statement, or several in one text, may leave on the session.

    Raises:
        NotYoursError: the text would begin or end the job's transaction.
    """
    if sql in CLEAN:
        return Leaves.NOTHING
    return _judge_remembered(sql) if len(sql) <= TEXT_REMEMBERED_MAX else _judge(sql)


def _judge(sql: str) -> Leaves:
    found = Leaves.NAMES if _NAMES.search(sql) else Leaves.STATE
    if _SUSPECT.search(sql) is None:
        return found
    for words in _statements(sql):
        if _ends_transaction(words):
            raise NotYoursError(
                f"a handler must not send {words[0]}: the worker begins and ends its transaction"
            )
        if words[0] in _TRACES:
            found = Leaves.TRACES
    return found


_judge_remembered: Final = lru_cache(maxsize=512)(_judge)


def _ends_transaction(words: list[str]) -> bool:
    match words:
        case ["ROLLBACK", "TO", *_] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", *_]:
            return False
        case ["PREPARE", "TRANSACTION", *_]:
            return True
    return words[0] in _ENDS


def _statements(sql: str) -> Iterator[list[str]]:
    """Yield the first words of each statement in a text, in capitals.

    The body of a routine, between BEGIN ATOMIC and its END, is part of the statement that makes it.
    """
    words: list[str] = []
    position = open_blocks = 0
    last = ""
    while (token := _TOKEN.search(sql, position)) is not None:
        position = token.end()
        match token.lastgroup:
            case "comment":
                position = _end_of_comment(sql, position)
            case "dollar" | "tag":
                closing = sql.find(token["dollar"], position)
                position = len(sql) if closing < 0 else closing + len(token["dollar"])
            case "word":
                before, last = last, token["word"].upper()
                open_blocks += _opens(before, last, words, open_blocks)
                if len(words) < WORDS_LOOKED_AT:
                    words.append(last)
            case "end" if words and not open_blocks:
                yield words
                words = []
    if words:
        yield words


def _opens(before: str, word: str, words: list[str], open_blocks: int) -> int:
    """Return how many blocks of a routine's body a word opens; -1: it closes one.

    Args:
        before: the word before it.
        word: in capitals.
        words: the first of its statement.
        open_blocks: how many are open.
    """
    if open_blocks:
        return {"CASE": 1, "END": -1}.get(word, 0)
    return int((before, word) == ("BEGIN", "ATOMIC") and _makes_routine(words))


def _makes_routine(words: list[str]) -> bool:
    match words:
        case ["CREATE", "FUNCTION" | "PROCEDURE", *_]:
            return True
        case ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE"]:
            return True
    return False


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position if depth == 0 else len(sql)
