"""What every job inherits: a new file in `jobs/` is tested by being there."""

import subprocess
import sys

import pytest

from jobs import Policy, registry

HEAVY = ("sqlalchemy", "asyncpg", "alembic", "worker", "db", "email_validator", "iso4217")

every_job = pytest.mark.parametrize("job", registry().values(), ids=registry().keys())


def test_the_folder_is_the_registry():
    assert {"create_user", "transfer_funds", "build_report"} <= set(registry())


@every_job
def test_importing_a_job_loads_no_heavy_library(job):
    module = job.handler.__module__
    probe = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30
    )

    assert loaded.stdout.strip() == "[]"


@every_job
def test_a_job_says_in_a_sentence_what_it_does(job):
    assert job.description.endswith(".")
    assert (job.payload.__doc__ or "").strip().endswith(".")


@every_job
def test_a_payload_is_frozen_closed_and_strict(job):
    assert job.payload.model_config["frozen"] is True
    assert job.payload.model_config["extra"] == "forbid"
    assert job.payload.model_config["strict"] is True


@every_job
def test_a_job_has_a_schema_for_its_payload_and_its_result(job):
    assert job.payload.model_json_schema()["additionalProperties"] is False
    assert job.result_type() is not None


@every_job
def test_a_job_ends_by_itself(job):
    assert isinstance(job.policy, Policy)
    assert 0 < job.policy.timeout.total_seconds() < 3600
    assert 0 < job.policy.attempts_max < 100
