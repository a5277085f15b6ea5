"""`worker webhooks`: endpoints as an operator adds, sees and changes them."""

import json
import re

import pytest
from typer.testing import CliRunner

from worker.cli import webhooks
from worker.cli._options import UsageError

URL = "https://shop.example/hook"


@pytest.fixture
def run(monkeypatch, new_database_url, redis_url):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)

    def run(*arguments):
        result = CliRunner().invoke(webhooks.app, list(arguments))
        if isinstance(result.exception, UsageError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def listed(run):
    return {one["name"]: one for one in json.loads(run("list", "--json"))}


def test_a_secret_is_shown_once_when_it_is_made(run):
    secret = re.findall(r"whsec_\S+", run("add", "shop", URL))

    assert len(secret) == 1
    assert "whsec_" not in run("list") + run("list", "--json")


def test_an_endpoint_goes_through_its_life(run):
    assert "no endpoints" in run("list")
    run("add", "shop", URL)
    assert listed(run)["shop"]["state"] == "well"

    run("disable", "shop", "--reason", "being moved")
    assert listed(run)["shop"]["disabled_because"] == "being moved"
    assert "disabled" in run("list")

    run("enable", "shop")
    assert listed(run)["shop"]["state"] == "well"

    assert "whsec_" in run("rotate", "shop")
    assert listed(run)["shop"]["secrets"] == 2

    run("remove", "shop")
    assert listed(run) == {}


@pytest.mark.parametrize("command", ["disable", "enable", "rotate", "remove"])
def test_an_endpoint_that_is_not_there_is_named(run, command):
    with pytest.raises(UsageError, match="there is no endpoint nobody to change"):
        run(command, "nobody")


def test_a_name_is_taken_once(run):
    run("add", "shop", URL)

    with pytest.raises(UsageError, match="there is an endpoint shop already"):
        run("add", "shop", URL)


@pytest.mark.parametrize(
    "url", ["shop.example", "ftp://shop.example/", "https://a:b@shop.example/"]
)
def test_a_url_that_no_message_can_go_to_is_refused(run, url):
    with pytest.raises(UsageError, match="a webhook's URL"):
        run("add", "shop", url)
