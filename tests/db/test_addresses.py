"""Every way that libpq's URLs lead to a server: hosts, sockets, IPv6, passwords, certificates."""

import asyncio
import socket
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import text

from db.engine import create_engine
from db.errors import Trouble, diagnose
from tests import servers as versions
from worker.dev.servers import PostgresServer
from worker.dev.servers.server import free_port

WITH_TLS = 18
"""The wheel's server has no TLS; that of npm's package has."""

PASSWORD = "p@ss/w:rd %#?&é"
HBA = """
local   all all                     trust
hostssl all certified 127.0.0.1/32  cert
host    all guarded   127.0.0.1/32  scram-sha-256
hostssl all all       127.0.0.1/32  trust
host    all open      127.0.0.1/32  trust
hostssl all all       ::1/128       trust
"""
NEW_CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    *("-nodes", "-days", "2"),
)
HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def issue(folder, name, *, by=None, host=None):
    """Make a certificate and its key."""
    files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    issuer = ["-CA", folder / f"{by}.pem", "-CAkey", folder / f"{by}.key"] if by else []
    alternative = ["-addext", f"subjectAltName={host}"] if host else []
    subject = ["-subj", f"/CN={name}"]
    command = [*NEW_CERTIFICATE, *files, *issuer, *alternative, *subject]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (folder / f"{name}.key").chmod(0o600)


class Guarded(PostgresServer):
    """A server with certificates, a socket, and users who must prove themselves."""

    def __init__(self, directory, certificates, sockets):
        super().__init__(directory, durable=False)
        self.sockets = sockets
        self._more = {
            "listen_addresses": "127.0.0.1,::1" if HAS_IPV6 else "127.0.0.1",
            "unix_socket_directories": sockets,
            "hba_file": certificates / "hba",
            "ssl": "on",
            "ssl_cert_file": certificates / "server.pem",
            "ssl_key_file": certificates / "server.key",
            "ssl_ca_file": certificates / "ca.pem",
        }

    @cached_property
    def _binaries(self):
        return versions.postgres(WITH_TLS)

    def _command(self, port):
        more = [part for name, value in self._more.items() for part in ("-c", f"{name}={value}")]
        return [*super()._command(port), *more]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    issue(folder, "ca")
    issue(folder, "other_ca")
    issue(folder, "server", by="ca", host="IP:127.0.0.1")
    issue(folder, "misnamed", by="ca", host="DNS:elsewhere.test")
    issue(folder, "certified", by="ca")
    issue(folder, "stranger", by="other_ca")
    (folder / "hba").write_text(HBA)
    return folder


async def make_roles(sockets, port):
    owner = await asyncpg.connect(host=sockets, port=port, user="postgres", database="postgres")
    quoted = PASSWORD.replace("'", "''")
    await owner.execute("CREATE ROLE certified LOGIN; CREATE ROLE open LOGIN")
    await owner.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{quoted}'")
    await owner.execute('CREATE DATABASE "we ird"')
    await owner.close()


@pytest.fixture(scope="module")
def tls_postgres(tmp_path_factory, certificates):
    versions.fetched(versions.postgres, WITH_TLS)
    # The path of a socket is short, wherever the tests are.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as sockets:
        running = Guarded(tmp_path_factory.mktemp("guarded"), certificates, sockets)
        with running:
            asyncio.run(make_roles(sockets, running.port))
            yield running


async def met(url):
    """Return who is connected, whereto, and whether it is encrypted."""
    engine = create_engine(url, pool_size=1, application_name="teller-tests")
    try:
        async with engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT current_user, current_database(), host(inet_server_addr()), ssl, "
                    "       current_setting('application_name'), current_setting('geqo') "
                    "FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
            )
            return tuple(found.one())
    finally:
        await engine.dispose()


async def trouble_of(url):
    try:
        await met(url)
    except Exception as error:  # noqa: BLE001 - which one it is, is for the test to say
        return diagnose(error).trouble, str(error)
    raise AssertionError("it was to fail")


@pytest.mark.parametrize(
    ("user", "parameters", "encrypted"),
    [
        ("open", "sslmode=disable", False),
        ("open", "sslmode=allow", False),
        ("open", "sslmode=prefer", True),
        ("open", "", True),
        ("open", "sslmode=require", True),
        ("postgres", "sslmode=allow", True),  # it is refused without
        ("open", "sslmode=verify-ca&sslrootcert={ca}", True),
        ("open", "sslmode=verify-full&sslrootcert={ca}", True),
        ("open", "sslmode=require&sslrootcert={ca}&ssl_min_protocol_version=TLSv1.3", True),
        ("certified", "sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}", True),
    ],
)
async def test_every_sslmode_means_what_libpq_says(
    tls_postgres, certificates, user, parameters, encrypted
):
    said = parameters.format(
        ca=quote(str(certificates / "ca.pem"), safe=""),
        cert=certificates / "certified.pem",
        key=certificates / "certified.key",
    )
    found = await met(f"postgresql://{user}@127.0.0.1:{tls_postgres.port}/postgres?{said}")
    assert found[0] == user
    assert found[3] is encrypted


@pytest.mark.parametrize(
    ("user", "parameters"),
    [
        ("open", "sslmode=verify-ca&sslrootcert={folder}/other_ca.pem"),
        ("open", "sslmode=verify-full&sslrootcert={folder}/other_ca.pem"),
        ("certified", "sslmode=require"),
        ("postgres", "sslmode=disable"),
    ],
)
async def test_who_is_not_proved_is_refused_and_waiting_is_not_the_answer(
    tls_postgres, certificates, user, parameters
):
    said = parameters.format(folder=certificates)
    trouble, _ = await trouble_of(
        f"postgresql://{user}@127.0.0.1:{tls_postgres.port}/postgres?{said}"
    )
    assert trouble is Trouble.ENVIRONMENT


async def test_a_certificate_of_somebody_elses_ca_proves_nothing(tls_postgres, certificates):
    cert = f"sslcert={certificates}/stranger.pem&sslkey={certificates}/stranger.key"
    start = f"postgresql://certified@127.0.0.1:{tls_postgres.port}/postgres?sslmode=require&"
    _, said = await trouble_of(f"{start}{cert}")
    assert "certified" not in said


async def test_a_certificate_for_another_name_is_refused_by_verify_full_alone(
    tls_postgres, certificates, tmp_path
):
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as sockets:
        elsewhere = Guarded(tmp_path, certificates, sockets)
        elsewhere._more["ssl_cert_file"] = certificates / "misnamed.pem"
        elsewhere._more["ssl_key_file"] = certificates / "misnamed.key"
        elsewhere._more["hba_file"] = certificates / "hba"
        with elsewhere:
            by_ca = f"127.0.0.1:{elsewhere.port}/postgres?sslrootcert={certificates}/ca.pem"
            by_ca = f"postgresql://postgres@{by_ca}&sslmode="
            assert (await met(f"{by_ca}verify-ca"))[3]
            trouble, said = await trouble_of(f"{by_ca}verify-full")
    assert trouble is Trouble.ENVIRONMENT
    assert "127.0.0.1" in said


@pytest.mark.parametrize("form", ["query", "host", "encoded"])
async def test_a_directory_of_sockets_is_a_host(tls_postgres, form):
    folder = quote(tls_postgres.sockets, safe="")
    url = {
        "query": f"postgresql:///postgres?host={tls_postgres.sockets}&user=open&port={tls_postgres.port}",
        "host": f"postgresql://open@/postgres?host={folder}&port={tls_postgres.port}",
        "encoded": f"postgresql://open@{folder}:{tls_postgres.port}/postgres",
    }[form]
    assert (await met(url))[:4] == ("open", "postgres", None, False)


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
async def test_an_address_of_ipv6_stands_in_brackets(tls_postgres):
    assert (await met(f"postgresql://open@[::1]:{tls_postgres.port}/postgres"))[2] == "::1"


async def test_of_several_hosts_the_first_that_answers_serves(tls_postgres):
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{tls_postgres.port}"
    found = await met(f"postgresql://open@{hosts}/postgres?target_session_attrs=read-write")
    assert found[:3] == ("open", "postgres", "127.0.0.1")
    ports = f"host=127.0.0.1,127.0.0.1&port={free_port()},{tls_postgres.port}"
    assert (await met(f"postgresql://open@/postgres?{ports}"))[2] == "127.0.0.1"


async def test_a_host_that_does_not_fit_what_is_asked_for_is_not_taken(tls_postgres):
    url = f"postgresql://open@127.0.0.1:{tls_postgres.port}/postgres?target_session_attrs=standby"
    _, said = await trouble_of(url)
    assert "standby" in said


@pytest.mark.parametrize("way", ["in the URL", "as a parameter", "PGPASSFILE", "passfile"])
async def test_a_password_of_any_letters_comes_by_each_way(
    tls_postgres, way, tmp_path, monkeypatch
):
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{tls_postgres.port}:*:guarded:{PASSWORD}\n")
    file.chmod(0o600)
    user, more = "guarded", ""
    match way:
        case "in the URL":
            user = f"guarded:{quote(PASSWORD, safe='')}"
        case "as a parameter":
            more = f"?password={quote(PASSWORD, safe='')}"
        case "PGPASSFILE":
            monkeypatch.setenv("PGPASSFILE", str(file))
        case "passfile":
            more = f"?passfile={quote(str(file), safe='')}"
    assert (await met(f"postgresql://{user}@127.0.0.1:{tls_postgres.port}/we%20ird{more}"))[:2] == (
        "guarded",
        "we ird",
    )


async def test_a_wrong_password_is_no_reason_to_wait(tls_postgres):
    url = f"postgresql://guarded:wrong@127.0.0.1:{tls_postgres.port}/postgres"
    assert (await trouble_of(url))[0] is Trouble.ENVIRONMENT


async def test_options_and_names_reach_the_server(tls_postgres):
    start = f"postgresql://open@127.0.0.1:{tls_postgres.port}/postgres?options=-c%20geqo%3Doff"
    assert (await met(start))[4:] == ("teller-tests", "off")
    assert (await met(f"{start}&application_name=shop"))[4:] == ("shop", "off")


async def test_the_connect_timeout_of_the_url_holds():
    silent = socket.create_server(("127.0.0.1", 0), backlog=1)
    port = silent.getsockname()[1]
    try:
        url = f"postgresql://open@127.0.0.1:{port}/postgres?connect_timeout=1&sslmode=disable"
        assert (await trouble_of(url))[0] is Trouble.CONNECTION
    finally:
        silent.close()
