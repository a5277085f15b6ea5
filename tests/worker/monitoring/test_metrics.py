"""Metrics: counted from events, under names that parsers, dashboards and alerts agree on."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.worker.monitoring.samples import sample_metrics
from worker.monitoring.events import EVENTS
from worker.monitoring.metrics import OTHER_KIND, describe_metrics

PROJECT = Path(__file__).parents[3]
ALERTS = PROJECT / "deploy/prometheus/alerts.yaml"
DASHBOARD = PROJECT / "deploy/grafana/dashboard.json"

FIELDS = {
    "job_id": "7b0b2f6e-0000-7000-8000-000000000001",
    "kind": "send_letter",
    "try_number": 2,
    "run_s": 0.02,
    "wait_s": 0.5,
    "state": "completed",
    "trouble": "conflict",
    "sqlstate": "40P01",
    "blocked_by": "environment:42501",
    "schedule": "nightly",
    "runs": 3,
    "late_s": 0.2,
    "fire_at": "2026-01-01T00:00:00+00:00",
    "duty": "relay",
    "queue": "arq:queue",
    "others": ["letters"],
    "error": "OSError",
    "failures": 1,
    "jobs": 5,
    "rebuilt": True,
    "concurrency": 16,
    "slot": 0,
    "exit_code": 1,
    "restart_in_s": 0.5,
    "slices": 2,
    "open_s": 3.0,
    "dead": 1,
    "members": 3,
    "batch_id": "0198c0de-0000-7000-8000-000000000000",
    "moved_to": "arq:queue:spoiled",
    "target": "queue:reports",
    "by": "ada",
    "reason": "month end",
    "address": "('127.0.0.1', 8089)",
}


# Dashboards and alerts outside of this repository name them: a name or a label that is gone from
# here breaks them silently.
EXPOSED = """
teller_backlog_age_seconds
teller_batches_held
teller_batches_oldest_open_age_seconds
teller_batches_open
teller_build_info version
teller_duty_failures_total duty
teller_event_loop_lag_seconds
teller_jobs_aborted_total
teller_jobs_blocked cause kind
teller_jobs_conflicts_total kind
teller_jobs_dead
teller_jobs_duplicates_absorbed_total kind
teller_jobs_finished_total kind outcome
teller_jobs_oldest_runnable_age_seconds
teller_jobs_queue_wait_seconds_bucket kind le
teller_jobs_queue_wait_seconds_count kind
teller_jobs_queue_wait_seconds_sum kind
teller_jobs_retried_total kind reason sqlstate via
teller_jobs_run_seconds_bucket kind le outcome
teller_jobs_run_seconds_count kind outcome
teller_jobs_run_seconds_sum kind outcome
teller_jobs_runnable
teller_jobs_running
teller_jobs_scheduled
teller_jobs_unrecorded_total kind
teller_jobs_waits_for_environment_total blocked_by kind
teller_jobs_waits_for_worker_total
teller_paused target
teller_postgresql_up
teller_quarantine_entries
teller_queue_jobs_runnable queue
teller_queue_oldest_runnable_age_seconds queue
teller_queue_quarantined_total
teller_queue_slots queue
teller_queue_slots_taken queue
teller_redis_losses_total
teller_redis_up
teller_relay_lag_seconds
teller_relay_rebuilds_total
teller_relay_sent_total
teller_schedule_failures_total schedule
teller_schedule_keys_taken_total schedule
teller_schedule_late_seconds_bucket le schedule
teller_schedule_late_seconds_count schedule
teller_schedule_late_seconds_sum schedule
teller_schedule_missed_total schedule
teller_schedule_runs_total schedule
teller_server_trouble server trouble
teller_webhook_endpoint_trouble_seconds endpoint trouble
teller_worker_draining
teller_worker_ready
teller_worker_slots
teller_workers
"""


@pytest.fixture
def metrics():
    return sample_metrics("send_letter")


def emit(metrics, name, **changes):
    metrics.count(name, {field: FIELDS.get(field, 1) for field in EVENTS[name].fields} | changes)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def samples(metrics):
    """Return every series of ours on the page, with its family."""
    for name in EVENTS:
        emit(metrics, name)
    families = text_string_to_metric_families(metrics.exposition().decode())
    return [(family, one) for family in families for one in family.samples if is_ours(family)]


def is_ours(family):
    return family.name.startswith("teller_")


def metric_names():
    """Return the name of every series that `/metrics` can show."""
    return {line.split()[0] for line in EXPOSED.strip().splitlines()} | {
        metric.name for metric in describe_metrics()
    }


def test_names_and_labels_on_the_page_are_the_ones_that_dashboards_know(metrics):
    exposed = {" ".join([one.name, *sorted(one.labels)]) for _, one in samples(metrics)}

    assert sorted(exposed) == EXPOSED.strip().splitlines()


def test_the_description_of_the_metrics_is_true_of_the_page(metrics):
    exposed = {
        (re.sub("_(bucket|sum|count)$", "", one.name), *sorted({*one.labels} - {"le"}))
        for _, one in samples(metrics)
    }
    meanings = {family.documentation for family, _ in samples(metrics)}
    described = describe_metrics()

    assert {(metric.name, *sorted(metric.labels)) for metric in described} == exposed
    assert {metric.meaning for metric in described} == meanings


def test_a_finished_job_is_counted_and_its_times_observed(metrics):
    emit(metrics, "job.finished")
    emit(metrics, "job.finished", state="rejected")
    emit(metrics, "job.dead")

    kind = {"kind": "send_letter"}
    for outcome in ("completed", "rejected", "dead"):
        assert value(metrics, "teller_jobs_finished_total", outcome=outcome, **kind) == 1
    assert value(metrics, "teller_jobs_queue_wait_seconds_sum", **kind) == 1.0
    assert value(metrics, "teller_jobs_run_seconds_count", outcome="dead", **kind) == 1


def test_duplicates_retries_by_sqlstate_and_late_schedules_have_their_own_counts(metrics):
    emit(metrics, "job.duplicate")
    emit(metrics, "job.run_again")
    emit(metrics, "job.put_back", sqlstate=None, trouble="connection")
    emit(metrics, "schedule.made")
    emit(metrics, "schedule.missed")
    emit(metrics, "relay.sent")

    kind = {"kind": "send_letter"}
    assert value(metrics, "teller_jobs_duplicates_absorbed_total", **kind) == 1
    retried = "teller_jobs_retried_total"
    assert value(metrics, retried, reason="conflict", sqlstate="40P01", via="in_place", **kind) == 1
    assert (
        value(metrics, retried, reason="connection", sqlstate="none", via="put_back", **kind) == 1
    )
    assert value(metrics, "teller_schedule_late_seconds_sum", schedule="nightly") == 0.2
    assert value(metrics, "teller_schedule_missed_total", schedule="nightly") == 3
    assert value(metrics, "teller_relay_sent_total") == 5


def test_a_kind_that_nobody_knows_makes_no_new_series(metrics):
    emit(metrics, "job.dead", kind="first strange kind")
    emit(metrics, "job.dead", kind="second strange kind")

    assert value(metrics, "teller_jobs_finished_total", kind=OTHER_KIND, outcome="dead") == 2
    assert b"strange" not in metrics.exposition()


def test_the_page_is_one_that_prometheus_reads(metrics):
    for name in EVENTS:
        emit(metrics, name)
    families = list(text_string_to_metric_families(metrics.exposition().decode()))

    ours = [family for family in families if is_ours(family)]
    assert len(ours) > 20
    assert [family.name for family in ours if not family.documentation] == []
    assert len({family.name for family in families}) == len(families)
    for family in ours:
        for sample in family.samples:
            assert not {"job_id", "key"} & set(sample.labels)
            if family.type == "counter":
                assert sample.name.endswith("_total")
            assert re.fullmatch(r"teller_[a-z_]+", sample.name)
            assert "milli" not in sample.name


def test_the_state_of_the_process_is_read_at_the_scrape():
    metrics = sample_metrics()

    assert value(metrics, "teller_worker_ready") == 0
    assert value(metrics, "teller_worker_slots") == 16
    assert value(metrics, "teller_jobs_oldest_runnable_age_seconds") == 0
    assert value(metrics, "teller_redis_up") == 1


def test_blocked_jobs_are_counted_by_kind_and_cause_and_unknown_kinds_are_one():
    metrics = sample_metrics("send_letter")

    known = {"kind": "send_letter", "cause": "newer_worker"}
    assert value(metrics, "teller_jobs_blocked", **known) == 2
    assert value(metrics, "teller_jobs_blocked", **known | {"kind": "other"}) == 4


def names_in(expression):
    """Return the metrics that a PromQL expression asks for."""
    return set(re.findall(r"\bteller_[a-z_]+", expression))


def assert_promql(expression):
    try:
        promql_parser.parse(expression)
    except ValueError as error:
        pytest.fail(f"{expression}: {error}")


def alert_rules():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_alert_rules_have_the_shape_that_prometheus_loads():
    document = yaml.safe_load(ALERTS.read_text())
    assert set(document) == {"groups"}
    for group in document["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
    for rule in alert_rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smhd]", rule["for"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert_promql(rule["expr"])
    names = [rule["alert"] for rule in alert_rules()]
    assert len(names) == len(set(names)) > 8


def test_every_metric_in_the_alerts_exists():
    asked = set().union(*(names_in(rule["expr"]) for rule in alert_rules()))

    assert len(asked) > 8
    assert asked - metric_names() == set()


def dashboard_panels():
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_every_metric_in_the_dashboard_exists():
    asked = set()
    for panel in dashboard_panels():
        for target in panel["targets"]:
            asked |= names_in(target["expr"])
            assert_promql(target["expr"].replace("$__rate_interval", "5m"))

    assert len(asked) > 15
    assert asked - metric_names() == set()


def test_the_dashboard_has_the_shape_that_grafana_loads():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"]
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["id"] is None
    [source] = dashboard["templating"]["list"]
    assert (source["type"], source["query"], source["name"]) == (
        "datasource",
        "prometheus",
        "datasource",
    )
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in dashboard_panels():
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        box = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(box["x"], box["x"] + box["w"])
            for y in range(box["y"], box["y"] + box["h"])
        }
        assert box["x"] + box["w"] <= 24
        assert not cells & taken
        taken |= cells
