"""The manifests are what Kubernetes knows, and fit what the worker does."""

from datetime import timedelta
from typing import Any

import pytest
from lightkube.models import apps_v1, batch_v1, core_v1, policy_v1
from sqlalchemy import text

from tests.deploy.kit import container_of, instructions, objects, the
from tests.worker.monitoring.samples import sample_metrics
from worker.monitoring.backlog import BacklogMonitor
from worker.monitoring.http.pages import Pages
from worker.monitoring.loop_lag import LoopLag
from worker.monitoring.state import WorkerState
from worker.settings import Settings

KNOWN: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): core_v1.ConfigMap,
    ("apps/v1", "Deployment"): apps_v1.Deployment,
    ("batch/v1", "Job"): batch_v1.Job,
    ("policy/v1", "PodDisruptionBudget"): policy_v1.PodDisruptionBudget,
}
# KEDA's own kinds, whose fields are named here, for its schema comes with the cluster.
KEDA = "keda.sh/v1alpha1"
SCALED_FIELDS = {
    "scaleTargetRef",
    "minReplicaCount",
    "maxReplicaCount",
    "pollingInterval",
    "advanced",
    "triggers",
}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
SETTINGS = {f"TELLER_{name}".upper(): field for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("one", objects(), ids=[one["kind"] for one in objects()])
def test_kubernetes_knows_every_field_and_its_type(one):
    if one["apiVersion"] == KEDA:
        assert one["kind"] in {"ScaledObject", "TriggerAuthentication"}
        return
    model = KNOWN[one["apiVersion"], one["kind"]]

    # A wrong type or a missing field raises; a field that Kubernetes does not know is lost.
    assert model.from_dict(one).to_dict() == one


def test_draining_ends_before_the_pod_is_killed():
    grace_s = the("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    given = int(the("ConfigMap")["data"]["TELLER_DRAIN_GRACE_S"])

    assert grace_s > max(given, SETTINGS["TELLER_DRAIN_GRACE_S"].default)


@pytest.mark.parametrize("probe", PROBES)
async def test_a_probe_asks_a_page_that_exists(probe, sessions):
    asked = container_of("Deployment")[probe]["httpGet"]
    backlog, metrics = BacklogMonitor(sessions), sample_metrics()
    pages = Pages(WorkerState(), LoopLag(), backlog, metrics, {}, blocked_after_s=10.0)

    assert await pages.find(asked["path"]) is not None
    assert asked["port"] == "health"


def test_an_outage_of_a_server_restarts_nothing():
    container = container_of("Deployment")

    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_probes_come_to_the_port_where_the_image_listens():
    (port,) = container_of("Deployment")["ports"]
    image = dict(instructions())

    assert port["containerPort"] == int(image["EXPOSE"]) == SETTINGS["TELLER_HEALTH_PORT"].default
    assert "TELLER_HEALTH_HOST=0.0.0.0" in image["ENV"]
    annotations = the("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == image["EXPOSE"]


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_containers_can_write_nothing_and_gain_nothing(kind):
    pod = the(kind)["spec"]["template"]["spec"]
    user, group = dict(instructions())["USER"].split(":")

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (
        int(user),
        int(group),
    )
    assert container_of(kind)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container_of(kind)["resources"]["limits"]["memory"]


def test_settings_are_ones_that_exist_and_what_is_secret_is_in_the_secret():
    data = the("ConfigMap")["data"]

    assert data.keys() <= SETTINGS.keys()
    for kind in ("Deployment", "Job"):
        assert container_of(kind)["envFrom"] == [
            {"configMapRef": {"name": "teller"}},
            {"secretRef": {"name": "teller"}},
        ]


def test_one_image_migrates_and_works():
    assert container_of("Deployment")["image"] == container_of("Job")["image"]
    assert container_of("Job")["args"] == ["migrate"]


def test_the_budget_and_the_scaling_are_about_the_workers():
    deployment, scaled = the("Deployment"), the("ScaledObject")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert scaled.keys() == SCALED_FIELDS
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    authentication = the("TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


@pytest.fixture
async def age(sessions):
    """Ask KEDA's question of a record with nothing in it."""
    (trigger,) = the("ScaledObject")["spec"]["triggers"]

    async def ask():
        async with sessions() as session:
            return await session.scalar(text(trigger["metadata"]["query"]))

    async with sessions.begin() as session:
        await session.execute(text("DELETE FROM jobs"))
        await session.execute(text("DELETE FROM workers"))
    return ask


async def queue(sessions, *ages):
    async with sessions.begin() as session:
        for age in ages:
            await session.execute(
                text(
                    "INSERT INTO jobs (kind, payload, run_at) "
                    "VALUES ('any', '{}', clock_timestamp() - CAST(:age AS interval))"
                ),
                {"age": age},
            )


async def work(sessions, running, seen_ago=timedelta(0)):
    async with sessions.begin() as session:
        await session.execute(
            text(
                "INSERT INTO workers "
                "(id, host, pid, version, kinds, state, mode, jobs_running, queue_key, queues, "
                "seen_at) "
                "VALUES (new_id(), 'a', 1, '1', '{any}', 'running', 'normal', :running, "
                "'arq:queue', '{default}', clock_timestamp() - CAST(:ago AS interval))"
            ),
            {"running": running, "ago": seen_ago},
        )


async def test_the_fleet_grows_by_the_age_of_the_oldest_job_that_waits(sessions, age):
    assert await age() == 0
    await queue(sessions, timedelta(minutes=-5))
    assert await age() == 0

    await queue(sessions, timedelta(minutes=1), timedelta(minutes=2))

    assert await age() == pytest.approx(120, abs=30)


async def test_a_long_job_that_runs_calls_up_no_more_workers(sessions, age):
    await queue(sessions, timedelta(hours=1), timedelta(minutes=1))
    await work(sessions, running=1)
    assert await age() == pytest.approx(60, abs=30)

    await work(sessions, running=1)

    assert await age() == 0


async def test_a_worker_that_is_gone_runs_nothing(sessions, age):
    await queue(sessions, timedelta(hours=1))
    await work(sessions, running=1, seen_ago=timedelta(minutes=1))

    assert await age() == pytest.approx(3_600, abs=30)
