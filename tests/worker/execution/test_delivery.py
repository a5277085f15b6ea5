import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs._payload import PAYLOAD_BYTES_MAX
from jobs._wire import job_id_of
from worker.execution.delivery import WAIT_MAX_S, read_delivery

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def ctx(job_id="order-42"):
    return {
        "job_id": job_id,
        "job_try": 1,
        "enqueue_time": datetime.now(UTC),
        "score": int(time.time() * 1000),
    }


def test_a_uuid_is_its_own_id_in_every_form():
    job_id = uuid4()

    assert job_id_of(str(job_id)) == job_id_of(job_id.hex) == job_id


def test_a_free_form_id_is_the_same_job_for_ever():
    assert job_id_of("order-42") == UUID("b78f9c25-144e-52a0-aa64-b9e009c22aa0")
    assert job_id_of("order-42") != job_id_of("order-43")


def test_the_row_remembers_the_id_that_the_client_chose():
    assert read_delivery("toy", ctx("order-42"), [{}], {}).job.redis_id == "order-42"
    assert read_delivery("toy", ctx(str(uuid4())), [{}], {}).job.redis_id is None


def test_an_id_that_fits_no_column_leads_to_the_same_job_by_its_uuid():
    job = read_delivery("toy", ctx("a\x00b"), [{}], {}).job

    assert job.redis_id is None
    assert job_id_of(str(job.id)) == job_id_of("a\x00b")


@pytest.mark.parametrize("score", [-(2**53), 0, 1])
def test_a_score_long_ago_does_not_count_as_a_wait(score):
    assert read_delivery("toy", ctx() | {"score": score}, [{}], {}).wait_s < 60


def test_no_wait_is_longer_than_a_year():
    times = {"score": 0, "enqueue_time": datetime.fromtimestamp(0, UTC)}

    assert read_delivery("toy", ctx() | times, [{}], {}).wait_s == WAIT_MAX_S


def test_a_wait_is_counted_from_when_the_job_was_due():
    times = {"score": (time.time() - 5) * 1000, "enqueue_time": datetime.fromtimestamp(0, UTC)}

    assert 5 <= read_delivery("toy", ctx() | times, [{}], {}).wait_s < 60


def test_a_delivery_without_arguments_came_by_its_id():
    assert read_delivery("toy", ctx(), [], {}).by_id


def test_more_than_one_argument_is_a_fault_and_is_kept():
    delivery = read_delivery("toy", ctx(), [1, 2], {"x": 3})

    assert delivery.fault == "the payload must be the one positional argument"
    assert orjson.loads(delivery.job.payload_json) == {"args": [1, 2], "kwargs": {"x": 3}}


def test_a_payload_beyond_the_bound_is_a_fault():
    delivery = read_delivery("toy", ctx(), ["x" * PAYLOAD_BYTES_MAX], {})

    assert delivery.fault is not None
    assert "more than 65536" in delivery.fault


@given(json_values)
def test_every_payload_is_kept_in_a_form_that_jsonb_accepts(payload):
    delivery = read_delivery("toy", ctx(), [payload], {})
    kept = delivery.job.payload_json

    assert "\\u0000" not in kept.replace("\\\\", "")
    assert orjson.loads(kept) == payload or "U+0000" in str(delivery.fault)
