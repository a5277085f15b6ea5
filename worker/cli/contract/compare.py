"""Whether a contract still takes what an older one took: jobs queued, answers given.

Pure. It proves, rather than guesses: what it cannot prove wider is reported. Payloads may only
become wider, since queued ones were made by the older contract. Results are read by clients of
both ages, so what both know must stay the same, and what is new must be optional.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from worker.cli.contract.jobs_page import resolved

Schema = dict[str, Any]

_SILENT: Final = frozenset(
    {"title", "description", "default", "examples", "personal", "$defs", "deprecated", "readOnly"}
)
"""Keywords that refuse nothing; a changed default is looked at where a field may be left out."""

_UNDERSTOOD: Final = frozenset(
    {
        *("type", "enum", "const", "anyOf", "oneOf", "discriminator", "format", "pattern"),
        *("minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("properties", "required", "additionalProperties"),
    }
)

_LOWER_BOUNDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER_BOUNDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return, as sentences, how `new` fails what was made by `old`; none means safe to deploy.

    Args:
        old: the contract of the running workers: an older `jobs/contract.json`.
        new: the contract of this code.
    """
    return [change for kind, entry in old.items() for change in _kind(kind, entry, new.get(kind))]


def _kind(kind: str, old: dict[str, Any], new: dict[str, Any] | None) -> Iterator[str]:
    if new is None:
        yield f"{kind}: the kind is gone; keep it until no such job is queued (compat --live)"
        return
    yield from _Wider(old["payload"], new["payload"]).changes(f"{kind}.payload")
    if old["result"] is not None and new["result"] is None:
        yield f"{kind}.result: there is none any more, and clients read it"
    elif old["result"] is not None:
        yield from _result(old["result"], new["result"], f"{kind}.result")


def _result(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """Clients ignore fields they do not know; everything else they know must stay as it was."""
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, field in before.items():
        if name not in after:
            yield f"{path}.{name}: the field is gone, and clients read it"
            continue
        forward = list(_Wider(old, new).changes_of(field, after[name], f"{path}.{name}"))
        backward = _Wider(new, old).changes_of(after[name], field, f"{path}.{name}")
        yield from forward or (f"{change} (the other way round)" for change in backward)
    for name in sorted(set(new.get("required", ())) - set(before)):
        yield f"{path}.{name}: new and required, and stored results have none: give it a default"


class _Wider:
    """Compares two schemas: whatever the first takes, the second must take."""

    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old_root = old_root
        self._new_root = new_root

    def changes(self, path: str) -> Iterator[str]:
        """Yield what the second document refuses of the first."""
        yield from self.changes_of(self._old_root, self._new_root, path)

    def changes_of(self, old: Schema, new: Schema, path: str, depth: int = 0) -> Iterator[str]:
        """Yield what one schema refuses of another."""
        if depth > _DEPTH_MAX:
            yield f"{path}: nested too deep to compare"
            return
        wanted = _alternatives(old, self._old_root)
        offered = _alternatives(new, self._new_root)
        for option in wanted:
            attempts = [list(self._single(option, other, path, depth)) for other in offered]
            if all(attempts):
                # The alternative that comes closest says most about what is wrong.
                yield from min(attempts, key=len, default=[f"{path}: nothing is accepted any more"])

    def _single(self, old: Schema, new: Schema, path: str, depth: int) -> Iterator[str]:
        for keyword in sorted(new.keys() - _SILENT - _UNDERSTOOD):
            if old.get(keyword) != new[keyword]:
                yield f"{path}: {keyword} is new or changed, and cannot be compared"
        if not new.keys() - _SILENT:
            return
        values = _values(old)
        if values is not None:
            yield from self._listed(values, new, path)
            return
        if _values(new) is not None:
            yield f"{path}: only some values are accepted now: {_shown(_values(new))}"
            return
        if not _type_fits(old.get("type"), new.get("type")):
            yield f"{path}: was {old.get('type', 'anything')}, is {new.get('type')} now"
            return
        yield from _bounds(old, new, path)
        yield from _text(old, new, path)
        if old.get("type") in (None, "array"):
            yield from self._array(old, new, path, depth)
        if old.get("type") in (None, "object"):
            yield from self._object(old, new, path, depth)

    def _listed(self, values: list[Any], new: Schema, path: str) -> Iterator[str]:
        """Compare a list of values with a list of values, or with a schema that takes them all."""
        accepted = _values(new)
        for value in values:
            if accepted is not None:
                if not any(_same(value, other) for other in accepted):
                    yield f"{path}: {_shown(value)} is not accepted any more"
            elif not _plainly_takes(new, value):
                yield f"{path}: it is not certain that {_shown(value)} is still accepted"

    def _array(self, old: Schema, new: Schema, path: str, depth: int) -> Iterator[str]:
        first_old, first_new = old.get("prefixItems", []), new.get("prefixItems", [])
        rest_old, rest_new = old.get("items", {}), new.get("items", {})
        longest = max(len(first_old), len(first_new))
        limit = old.get("maxItems")
        for position in range(longest if limit is None else min(longest, limit)):
            before = first_old[position] if position < len(first_old) else rest_old
            after = first_new[position] if position < len(first_new) else rest_new
            yield from self.changes_of(before, after, f"{path}[{position}]", depth + 1)
        if limit is None or limit > longest:
            yield from self.changes_of(rest_old, rest_new, f"{path}[]", depth + 1)
        if new.get("uniqueItems") and not old.get("uniqueItems"):
            yield f"{path}: items that are equal count once now"

    def _object(self, old: Schema, new: Schema, path: str, depth: int) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        more_old, more_new = _more(old), _more(new)
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield f"{path}.{name}: is required now, and queued jobs may have none"
        for name, field in before.items():
            if name in after:
                yield from self.changes_of(field, after[name], f"{path}.{name}", depth + 1)
                yield from _default(field, after[name], f"{path}.{name}")
            elif more_new is None:
                yield f"{path}.{name}: the field is gone, and queued jobs may have it"
            else:
                yield from self.changes_of(field, more_new, f"{path}.{name}", depth + 1)
        if more_old is None:
            return
        for name in sorted(after.keys() - before.keys()):
            yield from self.changes_of(more_old, after[name], f"{path}.{name}", depth + 1)
        if more_new is None:
            yield f"{path}: fields that are not named are refused now"
        else:
            yield from self.changes_of(more_old, more_new, f"{path}.*", depth + 1)


_DEPTH_MAX: Final = 20


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """Return the schemas of which a value must fit one, references followed."""
    schema = resolved(schema, root)
    options = schema.get("anyOf", schema.get("oneOf"))
    if options is None:
        return [schema]
    return [one for option in options for one in _alternatives(option, root)]


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _same(one: object, other: object) -> bool:
    """Compare as JSON does: `true` is not 1."""
    return orjson.dumps(one) == orjson.dumps(other)


def _plainly_takes(schema: Schema, value: object) -> bool:
    """Tell whether a schema without any further condition takes a value."""
    if set(schema) - _SILENT - {"type"}:
        return False
    return _type_fits(_type_of(value), schema.get("type"))


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
    return "something else"


def _type_fits(old: str | None, new: str | None) -> bool:
    return new is None or old == new or (old == "integer" and new == "number")


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if keyword in new and not (keyword in old and old[keyword] >= new[keyword]):
            yield f"{path}: {keyword} was {old.get(keyword, 'absent')}, is {new[keyword]} now"
    for keyword in _UPPER_BOUNDS:
        if keyword in new and not (keyword in old and old[keyword] <= new[keyword]):
            yield f"{path}: {keyword} was {old.get(keyword, 'absent')}, is {new[keyword]} now"


def _text(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for keyword in ("pattern", "format"):
        if keyword in new and old.get(keyword) != new[keyword]:
            yield f"{path}: {keyword} is {new[keyword]!r} now, and may refuse what it took"


def _more(schema: Schema) -> Schema | None:
    """Return the schema of fields that are not named; None where there may be none."""
    match schema.get("additionalProperties", True):
        case False:
            return None
        case True:
            return {}
        case rule:
            return dict(rule)


def _default(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """A field that equals its default is not sent: a new default changes queued jobs."""
    if "default" in old and not _same(old["default"], new.get("default")):
        yield (
            f"{path}: the default was {_shown(old['default'])}, is {_shown(new.get('default'))} "
            "now, and queued jobs that left it out would change"
        )


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()
