"""What the code emits is in the table, with the fields that it is said to have."""

import ast
from pathlib import Path

import pytest

from worker.monitoring.events import EVENTS
from worker.monitoring.metrics import COUNTED

WORKER = Path(__file__).parents[3] / "worker"

PRIVATE = {"payload", "result", "username", "email", "name", "message", "args", "kwargs", "key"}


def emissions():
    """Yield every `….emit("name", field=…)` in the source."""
    sources = {path: path.read_text() for path in sorted(WORKER.rglob("*.py"))}
    emitting = {path: source for path, source in sources.items() if ".emit(" in source}
    for path, source in emitting.items():
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "emit"
                and node.args
            ):
                for name in ast.walk(node.args[0]):
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        fields = {keyword.arg for keyword in node.keywords if keyword.arg}
                        yield name.value, fields, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    ("name", "fields"),
    [pytest.param(name, fields, id=f"{where} {name}") for name, fields, where in emissions()],
)
def test_an_event_that_is_emitted_is_in_the_table_with_its_fields(name, fields):
    assert name in EVENTS
    assert fields <= set(EVENTS[name].fields)


@pytest.mark.parametrize("name", EVENTS)
def test_what_an_event_counts_is_a_metric_whose_labels_are_all_given(name):
    event = EVENTS[name]
    for count in event.counts:
        assert {*count.labels, *count.fixed} == set(COUNTED[count.metric].labels)
        assert set(count.labels.values()) <= set(event.fields)


def test_every_metric_is_counted_by_an_event_or_more():
    assert {count.metric for event in EVENTS.values() for count in event.counts} == set(COUNTED)


def test_nothing_is_logged_around_the_table():
    callers = [
        path.name for path in sorted(WORKER.rglob("*.py")) if "write_event(" in path.read_text()
    ]

    assert callers == ["events.py", "logs.py"]


def test_no_event_has_a_field_for_what_is_private():
    assert {name: spec.fields for name, spec in EVENTS.items() if PRIVATE & set(spec.fields)} == {}


def test_every_event_in_the_table_is_emitted_somewhere():
    source = "".join(path.read_text() for path in WORKER.rglob("*.py") if path.name != "events.py")

    assert [name for name in EVENTS if f'"{name}"' not in source] == []
