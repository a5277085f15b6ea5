"""What of a payload is shown: nothing, but for the fields that their kind has marked public.

status: Annotated[str, Field(json_schema_extra={"public": True})]
"""

from typing import TYPE_CHECKING, Any, Final

from jobs import registry

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

HIDDEN: Final = "hidden"


def public_fields(payload: "type[BaseModel]") -> "dict[str, FieldInfo]":
    """Return the fields of a payload that are marked public, by name."""
    return {name: info for name, info in payload.model_fields.items() if _is_marked(info, "public")}


def _is_marked(info: "FieldInfo", mark: str) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get(mark) is True


def shown_fields(kind: str, payload: Any) -> list[tuple[str, Any, bool]]:  # noqa: ANN401 - any JSON
    """Return the fields of a stored payload: name, value, and whether the value may be shown.

    The value of a hidden one is None here: what is not public does not reach a page.
    """
    if not isinstance(payload, dict):
        return [("payload", None, False)]
    job = registry().get(kind)
    public = public_fields(job.payload) if job else {}
    return [
        (name, value if name in public else None, name in public)
        for name, value in sorted(payload.items())
    ]
