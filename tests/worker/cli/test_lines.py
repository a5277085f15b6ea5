"""Lines in, jobs or reasons out; keys that survive correcting, sorting and adding to a file."""

import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.cli.enqueue.keys import Keys
from worker.cli.enqueue.lines import LINE_BYTES_MAX, BadLine, JobLine, Line, parse_line, read_lines

PAYLOAD = {
    "address": "12 High Street",
    "pages": 2,
    "reference": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
}

pytestmark = pytest.mark.usefixtures("letters")


def a_line(number=1, **changes):
    shape = {"kind": "send_letter", "payload": PAYLOAD} | changes
    return Line(number, json.dumps(shape).encode(), 0)


@pytest.fixture
def keys():
    with Keys("batch") as made:
        yield made


def key_of(line, keys):
    asked = parse_line(line, keys)
    assert isinstance(asked, JobLine)
    return asked.candidate.key


def test_lines_are_numbered_and_their_ends_forgotten():
    lines = list(read_lines(io.BytesIO(b"\xef\xbb\xbfone\r\n\ntwo\nlast")))

    assert [(line.number, line.text) for line in lines] == [
        (1, b"one"),
        (2, b""),
        (3, b"two"),
        (4, b"last"),
    ]
    assert sum(line.bytes_read for line in lines) == 17


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_whole():
    source = io.BytesIO(b"x" * (3 * LINE_BYTES_MAX + 7) + b"\nnext\n")
    too_long, following = read_lines(source)

    assert too_long.too_long
    assert too_long.bytes_read == 3 * LINE_BYTES_MAX + 8
    assert (following.number, following.text, following.too_long) == (2, b"next", False)


def test_the_longest_line_allowed_is_whole():
    (line,) = read_lines(io.BytesIO(b"x" * LINE_BYTES_MAX + b"\n"))

    assert not line.too_long
    assert len(line.text) == LINE_BYTES_MAX


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=30).filter(lambda text: b"\n" not in text)))
def test_no_byte_is_lost_or_counted_twice(texts):
    whole = b"\n".join(texts)
    lines = list(read_lines(io.BytesIO(whole)))

    assert sum(line.bytes_read for line in lines) == len(whole)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "kind: Field required"),
        (b'{"kind": "send_letter", "payload": []}', "payload: Input should be a valid dict"),
        (b'{"kind": "send_letter", "payload": {}, "when": 1}', "when: Extra inputs"),
        (b'{"kind": "send_letter", "payload": {"pages": "5"}}', "pages: Input should be"),
        (b'{"kind": "send_letter", "payload": {}, "key": ""}', "key: String should have"),
        (b'{"kind": "send_letter", "payload": {}, "run_at": "2030-01-01"}', "run_at"),
        (b'{"kind": "send_letter", "payload": {}, "run_at": "0001-01-01T00:00+01:00"}', "1970"),
        (b'{"kind": "nope", "payload": {"a": NaN}}', "not JSON"),
        (b'{"kind": "nope", "payload": {"a": 1e999}}', "not JSON compliant"),
    ],
)
def test_a_bad_line_says_why(text, reason, keys):
    bad = parse_line(Line(7, text, 0), keys)

    assert isinstance(bad, BadLine)
    assert reason in bad.reason
    assert bad.line.number == 7


def test_a_blank_line_is_nothing(keys):
    assert parse_line(Line(1, b"  \t", 0), keys) is None


def test_a_reason_does_not_quote_the_payload(keys):
    bad = parse_line(a_line(payload={**PAYLOAD, "pages": "sesame"}), keys)

    assert isinstance(bad, BadLine)
    assert "sesame" not in bad.reason


def test_a_kind_that_only_the_database_knows_is_left_to_it(keys):
    asked = parse_line(Line(1, b'{"kind": "newer", "payload": {"b": 1, "a": "\xc3\xa9"}}', 0), keys)

    assert isinstance(asked, JobLine)
    assert asked.candidate.payload_json == '{"a":"é","b":1}'


def test_a_key_of_ones_own_wins(keys):
    assert key_of(a_line(key="mine"), keys) == "mine"


def test_equal_lines_are_counted_and_the_same_again_in_the_next_run():
    with Keys("batch") as first, Keys("batch") as second:
        one = [key_of(a_line(number), first) for number in range(3)]
        other = [key_of(a_line(number), second) for number in range(3)]

    assert len(set(one)) == 3
    assert one == other


def test_neither_position_nor_spelling_changes_a_key(keys):
    spelled = (
        json.dumps({"payload": dict(reversed(PAYLOAD.items())), "kind": "send_letter"}, indent=1)
        .replace("a0eebc99", "A0EEBC99")
        .replace("\n", " ")
    )
    with Keys("batch") as again:
        assert key_of(a_line(1), keys) == key_of(Line(99, spelled.encode(), 0), again)


@pytest.mark.parametrize("change", [{"run_at": "2030-01-01T00:00:00Z"}, {"kind": "newer"}])
def test_other_content_is_another_key(change, keys):
    with Keys("batch") as again:
        assert key_of(a_line(), keys) != key_of(a_line(**change), again)


def test_another_batch_is_another_key(keys):
    with Keys("tomorrow") as other:
        assert key_of(a_line(), keys) != key_of(a_line(), other)


def test_the_whole_name_of_a_batch_counts_however_long():
    with Keys("n" * 300 + "1") as first, Keys("n" * 300 + "2") as second:
        assert key_of(a_line(), first) != key_of(a_line(), second)


def test_a_key_is_never_longer_than_a_key_may_be():
    with Keys("n" * 5_000) as keys:
        assert len(key_of(a_line(), keys)) <= 200


def test_keys_of_many_lines_take_constant_memory():
    with Keys("batch") as keys:
        for number in range(1_000):
            keys.of_content("k", str(number), None)
        tracemalloc.start()
        for number in range(10_000):
            keys.of_content("k", str(number), None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 100_000
