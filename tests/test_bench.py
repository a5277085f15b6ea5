"""What of the benchmark is pure: reading reports, judging targets, drawing the table.

It is also shown that a peer which cannot be had is a row that says so, not a failure.
"""

import doctest
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import memory, peers, picture
from tests.bench.loop import Row
from tests.bench.peer_programs.counted import Counter, first

SVG = "{http://www.w3.org/2000/svg}"


def texts(path):
    return [
        " ".join("".join(element.itertext()).split())
        for element in ET.parse(path).iter(f"{SVG}text")
    ]


@pytest.mark.parametrize("module", [memory, peers, picture], ids=lambda module: module.__name__)
def test_the_examples_in_the_benchmark_hold(module):
    assert doctest.testmod(module) == (0, doctest.testmod(module).attempted)


def test_a_peer_s_jobs_note_a_twentieth_and_the_last(tmp_path):
    report = tmp_path / "report"
    count = Counter(200, report)
    for _ in range(250):
        count()
    assert [line.split()[0] for line in report.read_text().splitlines()] == ["10", "200"]


def test_the_first_job_that_matters_is_never_the_zeroth():
    assert [first(jobs) for jobs in (1, 19, 40, 6_000)] == [1, 1, 2, 300]


def test_every_peer_is_pinned_and_has_its_program():
    for peer in peers.PEERS:
        assert all(package.count("==") == 1 for package in peer.packages)
        assert (
            Path(peers.__file__).with_name("peer_programs").joinpath(f"{peer.program}.py").exists()
        )


def test_the_target_stands_in_the_row_of_the_fastest_peer():
    table = [
        Row("", "", theirs=[1, 9]),
        Row("", "", theirs=[6, 7]),
        Row("", "", against="absent"),
    ]
    peers.aim_at_fastest(table)
    assert [row.target for row in table] == ["", peers.TARGET, ""]
    peers.aim_at_fastest([Row("", "")])


def test_a_peer_that_cannot_be_installed_has_a_row_that_says_so(monkeypatch, tmp_path):
    absent, slow = (
        peers.Peer("Absent", ("absent==1",), "", ""),
        peers.Peer("Slow", ("s==2",), "", ""),
    )

    class PeerRunner:
        def __init__(self, *_):
            pass

        def ours(self, _):
            return 100.0

        def peer(self, peer, _):
            if peer is absent:
                raise peers.PeerError("could not be installed")
            return 10.0

        def close(self):
            pass

    monkeypatch.setattr(peers, "PEERS", (absent, slow))
    monkeypatch.setattr(peers, "PeerRunner", PeerRunner)
    missing, found = peers.rows("", "", peers.Effort(2, 1, 1))
    assert (missing.against, missing.ratio) == ("Absent 1 (could not be installed)", None)
    assert (found.against, found.ratio, found.target) == ("Slow 2", 10, "5x")
    assert found.ours == [100, 100]


def test_what_the_installer_says_is_kept_out_of_the_error(monkeypatch, tmp_path):
    def fail(command, *, stdout, **_):
        stdout.write("https://registry.example/simple")
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(peers.PeerError) as caught:
        peers.environment(tmp_path / "peer", ("peer==1",))
    assert str(caught.value) == "could not be installed"
    assert not (tmp_path / "peer" / "packages.json").exists()


def test_an_environment_is_made_once_for_the_same_packages(monkeypatch, tmp_path):
    ran = []

    def make(command, **_):
        ran.append(command)
        python = tmp_path / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(subprocess, "run", make)
    for packages in (("peer==1",), ("peer==1",), ("peer==2",)):
        peers.environment(tmp_path, packages)
    assert [command[-1] for command in ran[1::2]] == ["peer==1", "peer==2"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_allocates_holds_more():
    program = "import sys; hold = b'x' * {size}; print(flush=True); sys.stdin.read()"
    held = []
    for size in (1, 40 * 1024 * 1024):
        with subprocess.Popen(
            [sys.executable, "-c", program.format(size=size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            held.append(memory.session_mib(process.pid))
            process.stdin.close()
    assert 35 < held[1] - held[0] < 45


def test_the_picture_shows_every_row_its_figures_and_the_machine(tmp_path):
    path = tmp_path / "table.svg"
    rows = [
        Row("no-ops <&>", "jobs/s", [900, 1_000, 1_100], [100, 90, 110], "arq", ">= 20x"),
        Row("pick-up", "ms", [2], [500], target="<= 5 ms"),
        Row("slots", "jobs", [12], [4], target="12"),
        Row("nothing yet", "jobs"),
    ]
    picture.draw(rows, {"cpus": 2, "load": 0.123}, path)
    shown = texts(path)
    for text in (
        *("no-ops <&> jobs/s", "1,000", "10x", "≥ 20x missed", "arq"),
        *("pick-up ms, less is better", "1/250", "≤ 5 ms met", "12 met", "nothing yet jobs"),
        "cpus 2, load 0.1",
    ):
        assert text in shown
    whiskers = [
        path for path in ET.parse(path).iter(f"{SVG}path") if path.get("class") == "whisker"
    ]
    assert len(whiskers) == 2


def test_rows_that_share_our_samples_share_our_bar(tmp_path):
    path = tmp_path / "table.svg"
    ours = [100.0]
    rows = [
        Row("no-ops", "jobs/s", ours, [10], "SAQ 1", "5x"),
        Row("no-ops", "jobs/s", ours, [], "Celery 5 (could not be installed)"),
    ]
    picture.draw(rows, {}, path)
    shown = texts(path)
    assert [shown.count(text) for text in ("no-ops jobs/s", "ours", "5x met")] == [1, 1, 1]
    assert {"SAQ 1", "Celery 5", "could not be installed"} <= set(shown)


def test_all_that_is_drawn_lies_within_the_page(tmp_path):
    path = tmp_path / "table.svg"
    picture.draw([Row("r", "u", [1, 5], [2], "x", "2x")] * 3, {"system": "s" * 400}, path)
    svg = ET.parse(path).getroot()
    height = float(svg.get("height", 0))
    assert all(0 < float(text.get("y", 0)) < height for text in svg.iter(f"{SVG}text"))
    for bar in svg.iter(f"{SVG}rect"):
        assert float(bar.get("x", 0)) + float(bar.get("width", 0)) <= picture.WIDTH
