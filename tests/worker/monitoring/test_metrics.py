"""Metrics: counted from events, under names that parsers, dashboards and alerts agree on."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from worker.cli.contract.metrics_page import events_page, metric_names, metrics_page, sample_metrics
from worker.monitoring.backlog import Census
from worker.monitoring.events import CATALOGUE
from worker.monitoring.loop_lag import Pulse
from worker.monitoring.metrics import OTHER_KIND, Metrics
from worker.monitoring.state import Condition

PROJECT = Path(__file__).parents[3]
ALERTS = PROJECT / "deploy/prometheus/alerts.yaml"
DASHBOARD = PROJECT / "deploy/grafana/dashboard.json"

FIELDS = {
    "job_id": "7b0b2f6e-0000-7000-8000-000000000001",
    "kind": "transfer_funds",
    "try_number": 2,
    "run_s": 0.02,
    "wait_s": 0.5,
    "state": "completed",
    "trouble": "conflict",
    "sqlstate": "40P01",
    "schedule": "nightly",
    "runs": 3,
    "late_s": 0.2,
    "fire_at": "2026-01-01T00:00:00+00:00",
    "duty": "relay",
    "error": "OSError",
    "failures": 1,
    "jobs": 5,
    "rebuilt": True,
    "concurrency": 16,
    "address": "('127.0.0.1', 8089)",
}


@pytest.fixture
def metrics(sessions):
    return Metrics(
        ["transfer_funds"],
        version="1.2.3",
        slots=16,
        condition=Condition(),
        pulse=Pulse(),
        census=Census(sessions),
    )


def tell(metrics, name, **changes):
    metrics.count(name, {field: FIELDS[field] for field in CATALOGUE[name].fields} | changes)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_every_event_can_be_counted_with_the_fields_that_the_catalogue_gives_it(metrics):
    before = metrics.exposition()
    for name in CATALOGUE:
        tell(metrics, name)

    assert metrics.exposition() != before


def test_every_metric_that_the_catalogue_names_exists():
    named = {spec.metric for spec in CATALOGUE.values() if spec.metric}

    assert named <= metric_names()


def test_a_finished_job_is_counted_and_its_times_observed(metrics):
    tell(metrics, "job.finished")
    tell(metrics, "job.finished", state="rejected")
    tell(metrics, "job.dead")

    kind = {"kind": "transfer_funds"}
    for outcome in ("completed", "rejected", "dead"):
        assert value(metrics, "teller_jobs_finished_total", outcome=outcome, **kind) == 1
    assert value(metrics, "teller_jobs_queue_wait_seconds_sum", **kind) == 1.0
    assert value(metrics, "teller_jobs_run_seconds_count", outcome="dead", **kind) == 1


def test_duplicates_retries_by_sqlstate_and_late_schedules_have_their_own_counts(metrics):
    tell(metrics, "job.duplicate")
    tell(metrics, "job.run_again")
    tell(metrics, "job.put_back", sqlstate=None, trouble="connection")
    tell(metrics, "schedule.made")
    tell(metrics, "schedule.missed")
    tell(metrics, "relay.sent")

    kind = {"kind": "transfer_funds"}
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
    tell(metrics, "job.dead", kind="first strange kind")
    tell(metrics, "job.dead", kind="second strange kind")

    assert value(metrics, "teller_jobs_finished_total", kind=OTHER_KIND, outcome="dead") == 2
    assert b"strange" not in metrics.exposition()


def test_the_page_is_one_that_prometheus_reads(metrics):
    for name in CATALOGUE:
        tell(metrics, name)
    families = list(text_string_to_metric_families(metrics.exposition().decode()))

    ours = [family for family in families if family.name.startswith("teller_")]
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
    assert value(metrics, "teller_jobs_oldest_runnable_age_seconds") == 0
    assert value(metrics, "teller_redis_up") == 1


@pytest.mark.parametrize(
    ("page", "text"),
    [("events.md", events_page()), ("metrics.md", metrics_page())],
    ids=["events", "metrics"],
)
def test_the_page_in_docs_is_fresh(page, text):
    assert (PROJECT / "docs" / page).read_text() == text, "run `python -m worker events`"


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
