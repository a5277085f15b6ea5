"""Whether a contract keeps what an older one promised, by our own rule.

The words of a schema may change, and optional fields may be added; anything else is a new kind.
The rule is stricter than safety alone would be, and simple enough to be sure of. Pure.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

Schema = dict[str, Any]

DOCUMENTATION: Final = frozenset({"title", "description", "examples", "deprecated", "personal"})
"""Keywords that neither accept nor refuse anything. `default` is none of them: a queued job that
left a field out would mean something else."""

_VALUES: Final = frozenset({"default", "const", "enum", "discriminator"})
"""Keywords that hold values, not schemas."""

_MAPS: Final = frozenset({"properties", "$defs"})
"""Keywords whose keys are names: a field may be called "title"."""


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
    yield from _changes(_bare(old["payload"]), _bare(new["payload"]), f"{kind}.payload")
    if old["result"] is not None and new["result"] is None:
        yield f"{kind}.result: there is none any more, and clients read it"
    elif old["result"] is not None:
        yield from _changes(_bare(old["result"]), _bare(new["result"]), f"{kind}.result")


def _changes(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name not in after:
            yield f"{path}.{name}: the field is gone"
        elif _json(before[name]) != _json(after[name]):
            yield f"{path}.{name}: was {_json(before[name])}, is {_json(after[name])} now"
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    yield from (f"{path}.{name}: is required now" for name in sorted(needs - needed))
    yield from (
        f"{path}.{name}: is optional now" for name in sorted(needed - needs) if name in after
    )
    models, others = old.get("$defs", {}), new.get("$defs", {})
    for name in sorted(models.keys() & others.keys()):
        yield from _changes(models[name], others[name], f"{path} ({name})")
    for keyword in sorted((old.keys() | new.keys()) - {"properties", "required", "$defs"}):
        if _json(old.get(keyword)) != _json(new.get(keyword)):
            yield (
                f"{path}: {keyword} was {_json(old.get(keyword))}, is {_json(new.get(keyword))} now"
            )


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
