"""DATABASE_URL as libpq writes it: what is passed on, what is refused, and how it is told."""

import pytest

from db.connector import Connector
from db.url import DatabaseUrlError, read_url

LONG_TRIED = "postgresql://us%40er:p%2Fa%3As%25s%23@one:5433,[::1]:5434/my%20db"


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgres://a@h/n", "postgresql://a@h/n"),
        ("postgresql+asyncpg://a@h/n", "postgresql://a@h/n"),
        ("postgresql+psycopg://a:b@h/n?sslmode=require", "postgresql://a:b@h/n?sslmode=require"),
        ("postgresql://a@h/n?ssl=require", "postgresql://a@h/n?sslmode=require"),
        ("postgresql:///n?host=/run/postgresql", "postgresql:///n?host=%2Frun%2Fpostgresql"),
        ("postgresql://%2Frun%2Fpostgresql/n", "postgresql://%2Frun%2Fpostgresql/n"),
        ("postgresql://a:p@ss@h/n", "postgresql://a:p%40ss@h/n"),
        ("postgresql://a:50%@h/n", "postgresql://a:50%25@h/n"),
        ("postgresql://a@h/n?password=a+b", "postgresql://a@h/n?password=a%2Bb"),
        (
            "postgresql://a@h/n?options=-c%20geqo%3Doff",
            "postgresql://a@h/n?options=-c%20geqo%3Doff",
        ),
        (LONG_TRIED, LONG_TRIED),
    ],
)
def test_what_the_driver_reads_is_passed_to_it_with_every_letter_as_it_was(url, dsn):
    assert read_url(url).dsn == dsn


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("schema=public", "does not know schema"),
        ("pgbouncer=true&connection_limit=1", "does not know connection_limit, pgbouncer"),
        ("channel_binding=require", "channel_binding unless it is prefer or disable"),
        ("gssencmode=require", "gssencmode unless"),
        ("client_encoding=latin1", "client_encoding unless it is utf8"),
        ("load_balance_hosts=random", "load_balance_hosts unless"),
        ("connect_timeout=soon", "connect_timeout is a whole number"),
        ("connect_timeout=0", "connect_timeout is a whole number"),
        ("sslrootcert=/nowhere/ca.pem", "sslrootcert names a file that is not there"),
        ("sslcert=/nowhere/me.pem", "sslcert names a file that is not there"),
        ("passfile=/nowhere/pgpass", "passfile names a file that is not there"),
        ("sslmode", "sslmode has no value"),
    ],
)
def test_what_nobody_would_follow_is_refused_by_name(parameters, said):
    with pytest.raises(DatabaseUrlError, match=said):
        read_url(f"postgresql://a:secret@h/n?{parameters}")


@pytest.mark.parametrize("url", ["mysql://a@h/n", "host=h dbname=n", "", "postgresql:/h/n"])
def test_what_is_no_url_of_a_postgresql_is_refused(url):
    with pytest.raises(DatabaseUrlError, match="postgresql://user@host:5432/name"):
        read_url(url)


def test_a_fault_repeats_no_value():
    with pytest.raises(DatabaseUrlError) as told:
        read_url("postgresql://a:secret@h/n?password=hidden&sslkey=/private/key&sslpassword=shut")
    assert not {"secret", "hidden", "/private/key", "shut"} & set(str(told.value).split())
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "parameters",
    ["channel_binding=prefer", "client_encoding=UTF-8", "gssencmode=disable", "keepalives=1"],
)
def test_what_is_so_in_any_case_may_be_said(parameters):
    assert read_url(f"postgresql://a@h/n?{parameters}").dsn == "postgresql://a@h/n"


def test_the_connect_timeout_and_the_applications_name_are_the_urls():
    said = read_url("postgresql://a@h/n?connect_timeout=1&fallback_application_name=shop")
    assert said.connect_timeout_s == 2
    assert said.application_name == "shop"
    connector = Connector(
        "postgresql://a@h/n?connect_timeout=7&application_name=b&fallback_application_name=c",
        {"application_name": "teller"},
        connect_timeout_s=5,
        command_timeout_s=20,
    )
    assert connector._connect_timeout_s == 7
    assert connector._settings == {"application_name": "b"}
