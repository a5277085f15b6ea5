import pickle
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.execution import serializer as wire

READER = wire.JobReader(frozenset({"known"}))


def body(**changes):
    return wire.serialize({"t": None, "f": "known", "a": [{"x": 1}], "k": {}, "et": 1, **changes})


def test_a_job_of_a_known_kind_is_read_as_it_is():
    assert READER(body()) == {"t": None, "f": "known", "a": [{"x": 1}], "k": {}, "et": 1}


def test_a_job_of_an_unknown_kind_is_led_to_where_it_waits():
    job = READER(body(f="newer"))

    assert (job["f"], job["a"]) == (wire.UNKNOWN_KIND, ["newer", {"x": 1}])


@pytest.mark.parametrize(
    "changes",
    [{"f": 7}, {"f": "x" * 513}, {"a": {}}, {"k": []}, {"et": "now"}, {"t": "first"}],
    ids=str,
)
def test_json_that_is_not_a_job_is_kept_as_malformed(changes):
    job = READER(body(**changes))

    assert job["f"] == wire.MALFORMED
    assert job["a"] == [{"text": body(**changes).decode()}]


def test_a_pickle_is_kept_and_never_loaded():
    job = READER(pickle.dumps({"f": "known"}))

    assert job["f"] == wire.MALFORMED
    assert set(job["a"][0]) == {"base64"}


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_raise(anything):
    assert READER(anything)["f"] in {"known", wire.MALFORMED, wire.UNKNOWN_KIND}


def test_an_exception_goes_over_the_wire_as_its_class_and_message():
    assert wire.deserialize(wire.serialize({"r": ValueError("no"), "id": uuid4()}))["r"] == {
        "error": "ValueError",
        "message": "no",
    }
