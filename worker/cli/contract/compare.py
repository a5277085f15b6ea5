"""Whether a contract keeps what an older one promised, by our own rule.

The words of a schema may change. A payload may get optional fields, for older callers leave them
out; a result may get any fields, for older callers ignore them. Anything else is a new kind. The
rule is stricter than safety alone would be, and simple enough to be sure of. Pure.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

Schema = dict[str, Any]
Rule = Callable[[Schema, Schema, str], Iterator[str]]

DOCUMENTATION: Final = frozenset({"title", "description", "examples", "deprecated", "personal"})
"""Keywords that neither accept nor refuse anything. `default` is none of them: a queued job that
left a field out would mean something else."""

_VALUES: Final = frozenset({"default", "const", "enum", "discriminator"})
"""Keywords that hold values, not schemas."""

_MAPS: Final = frozenset({"properties", "$defs"})
"""Keywords whose keys are names: a field may be called "title"."""

_COMPARED_APART: Final = frozenset({"properties", "required", "$defs", "additionalProperties"})


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return, as sentences, what the rule forbids; none means safe to deploy.

    Args:
        old: the contract of the running workers: an older `jobs/contract.json`.
        new: the contract of this code.
    """
    return [
        change for kind, entry in old.items() for change in _of_kind(kind, entry, new.get(kind))
    ]


def _of_kind(kind: str, old: dict[str, Any], new: dict[str, Any] | None) -> Iterator[str]:
    if new is None:
        yield f"{kind}: the kind is gone; keep it until no such job is queued (compat --live)"
        return
    payloads = _bare(old["payload"]), _bare(new["payload"])
    yield from _changes(*payloads, f"{kind}.payload", _payload_rule)
    if old["result"] is not None and new["result"] is None:
        yield f"{kind}.result: there is none any more, and clients read it"
    elif old["result"] is not None:
        results = _bare(old["result"]), _bare(new["result"])
        yield from _changes(*results, f"{kind}.result", _result_rule)


def _changes(old: Schema, new: Schema, path: str, rule: Rule) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name not in after:
            yield f"{path}.{name}: the field is gone"
        elif _json(before[name]) != _json(after[name]):
            yield f"{path}.{name}: was {_json(before[name])}, is {_json(after[name])} now"
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    yield from (
        f"{path}.{name}: is optional now" for name in sorted(needed - needs) if name in after
    )
    yield from rule(old, new, path)
    models, others = old.get("$defs", {}), new.get("$defs", {})
    for name in sorted(models.keys() & others.keys()):
        yield from _changes(models[name], others[name], f"{path} ({name})", rule)
    for keyword in sorted((old.keys() | new.keys()) - _COMPARED_APART):
        yield from _change_of(keyword, old, new, path)


def _payload_rule(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """A caller must not be asked for more, nor find the payload open or closed all of a sudden."""
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    yield from (f"{path}.{name}: is required now" for name in sorted(needs - needed))
    yield from _change_of("additionalProperties", old, new, path)


def _result_rule(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """A result is read openly, whether its schema says so or not; the type of its values counts."""
    if isinstance(old.get("additionalProperties"), dict):
        yield from _change_of("additionalProperties", old, new, path)


def _change_of(keyword: str, old: Schema, new: Schema, path: str) -> Iterator[str]:
    was, is_now = _json(old.get(keyword)), _json(new.get(keyword))
    if was != is_now:
        yield f"{path}: {keyword} was {was}, is {is_now} now"


def _bare(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema without its documentation, however deep."""
    match schema:
        case list():
            return [_bare(one) for one in schema]
        case dict():
            words = {key: value for key, value in schema.items() if key not in DOCUMENTATION}
            return {key: _bare_value(key, value) for key, value in words.items()}
        case _:
            return schema


def _bare_value(keyword: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    if keyword in _VALUES:
        return value
    if keyword in _MAPS:
        return {name: _bare(one) for name, one in value.items()}
    return _bare(value)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
