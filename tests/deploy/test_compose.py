"""The compose file holds together, and fits what the worker does."""

import re

import pytest
import yaml

from tests.deploy.kit import PROJECT, compose, compose_config, seconds
from worker.settings import Settings

DRAIN_S = Settings.model_fields["drain_grace_s"].default


@pytest.fixture(scope="module")
def services():
    return compose_config()["services"]


def test_compose_takes_it():
    checked = compose("config", "--quiet", POSTGRES_PASSWORD="secret")

    assert (checked.returncode, checked.stderr) == (0, "")


def test_without_a_password_it_stops_and_says_so():
    refused = compose("config", "--quiet")

    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD is missing" in refused.stderr


def test_stopping_takes_longer_than_draining(services):
    assert seconds(services["worker"]["stop_grace_period"]) > DRAIN_S


def test_workers_wait_for_the_migration_and_the_servers(services):
    conditions = {name: on["condition"] for name, on in services["worker"]["depends_on"].items()}

    assert conditions == {
        "migrate": "service_completed_successfully",
        "redis": "service_healthy",
    }
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["worker", "migrate"])
def test_our_containers_can_write_nothing_and_gain_nothing(services, name):
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_whatever_keeps_running_is_bounded_and_started_again(services):
    for name in ("postgres", "redis", "worker"):
        assert services[name]["deploy"]["resources"]["limits"]["memory"], name
        assert services[name]["restart"] == "unless-stopped", name


def test_no_port_is_open_to_the_network(services):
    assert [name for name, service in services.items() if service.get("ports")] == []


def test_every_image_can_be_replaced():
    images = {"WORKER_IMAGE": "a:1", "POSTGRES_IMAGE": "b:2", "REDIS_IMAGE": "c:3"}
    services = compose_config(**images)["services"]

    assert {service["image"] for service in services.values()} == set(images.values())


def test_redis_never_drops_a_job_to_make_room(services):
    command = services["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_every_variable_it_reads_is_in_the_example():
    text = (PROJECT / "compose.yaml").read_text()
    example = (PROJECT / ".env.example").read_text()

    asked = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert {name for name in asked if f"# {name}=" not in example} == set()
    assert yaml.safe_load(text)["name"] == "teller"
