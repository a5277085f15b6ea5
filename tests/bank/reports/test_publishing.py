"""A report appears whole, once, under its name; what was left half done does not stay."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from jobs._reports.bucket import ONE_REQUEST_BYTES_MAX
from jobs._reports.destination import DestinationError
from jobs._reports.publish import destination_of
from jobs._reports.workspace import LOCK, workspace

DEADLINE_S = 20


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "work" / "report.part"
    made.parent.mkdir()
    made.write_bytes(b"line\n" * 1000)
    return made


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_a_directory_publishes_a_file_under_its_name(tmp_path, file):
    root = tmp_path / "re ports"
    published = destination_of(root.as_uri()).publish(file, "statement/2026-11-10/x.csv")

    target = root / "statement/2026-11-10/x.csv"
    assert published.url == target.as_uri()
    assert (published.sha256, published.size_bytes) == (digest(file.read_bytes()), 5000)
    assert target.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_a_name_is_published_once_and_answers_with_what_is_there(
    tmp_path, file, monkeypatch, links
):
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    destination = destination_of((tmp_path / "reports").as_uri())
    first = destination.publish(file, "a/x.csv")
    other = file.with_name("other.part")
    other.write_bytes(b"other")
    second = destination.publish(other, "a/x.csv")

    assert first == second
    assert (tmp_path / "reports/a/x.csv").read_bytes() == b"line\n" * 1000
    assert [path.name for path in (tmp_path / "reports/a").iterdir()] == ["x.csv"]


def _no_links(source, target):
    raise PermissionError(1, "Operation not permitted")


def test_a_report_is_on_the_disk_before_it_has_its_name(tmp_path, file, monkeypatch):
    steps = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: steps.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    link = os.link

    def noted_link(source, target):
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "link", noted_link)
    root = tmp_path / "reports"
    destination_of(root.as_uri()).publish(file, "a/x.csv")
    assert steps == [str(file), "link", str(root / "a"), str(root)]


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "reports", "file://host/x", "s3://", "s3://bucket/x?key=1", ""]
)
def test_a_place_that_is_none_is_refused_and_the_message_says_what_is_one(url):
    with pytest.raises(DestinationError, match=r"TELLER_REPORTS_URL: .*s3://bucket/prefix"):
        destination_of(url)


def test_a_workspace_is_gone_afterwards_whatever_happened(tmp_path):
    def interrupted():
        with workspace(tmp_path / "w") as folder:
            (folder / "lines.part").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.slow
def test_the_workspace_of_a_killed_worker_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from jobs._reports.workspace import workspace\n"
        "with workspace(Path(sys.argv[1])) as folder: print(folder, flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        with workspace(tmp_path) as mine:
            assert (folder / LOCK).exists()
            assert mine != folder
        other.send_signal(signal.SIGKILL)
        other.wait(DEADLINE_S)
    assert folder.exists()
    with workspace(tmp_path):
        assert not folder.exists()


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A server that speaks S3, with a bucket in it."""
    log = (tmp_path_factory.mktemp("moto") / "log").open("w+")
    server = Path(sys.executable).parent / "moto_server"
    with (
        log,
        subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", "0"], stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            endpoint = _endpoint(Path(log.name))
            client = boto3.client(
                "s3",
                endpoint_url=endpoint,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
            client.create_bucket(Bucket="teller")
            yield client, f"s3://teller/re/ports?region=us-east-1&endpoint={endpoint}"
        finally:
            process.terminate()


def _endpoint(log):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for word in log.read_text().split():
            if word.startswith("http://"):
                with urllib.request.urlopen(word) as answer:
                    assert answer.status == 200
                return word
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def bucket(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return destination_of(s3[1])


def test_a_bucket_publishes_a_file_under_its_name(s3, bucket, file):
    published = bucket.publish(file, "statement/x.csv")

    assert published.url == "s3://teller/re/ports/statement/x.csv"
    assert published.sha256 == digest(file.read_bytes())
    found = s3[0].get_object(Bucket="teller", Key="re/ports/statement/x.csv")
    assert found["Body"].read() == file.read_bytes()
    assert found["ContentType"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("size", [1000, ONE_REQUEST_BYTES_MAX * 2 + 1], ids=["small", "large"])
def test_a_bucket_keeps_what_is_there(s3, bucket, file, size):
    file.write_bytes(b"x" * size)
    first = bucket.publish(file, f"once/{size}.json")
    file.write_bytes(b"y" * size)
    second = bucket.publish(file, f"once/{size}.json")

    assert first == second
    assert first.size_bytes == size
    found = s3[0].get_object(Bucket="teller", Key=f"re/ports/once/{size}.json")
    assert digest(found["Body"].read()) == first.sha256


def test_a_bucket_that_is_not_there_is_a_failure(s3, bucket, file):
    wrong = destination_of(s3[1].replace("s3://teller", "s3://nobody"))
    with pytest.raises(FileNotFoundError):
        wrong.publish(file, "x.csv")
