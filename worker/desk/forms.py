"""What a form of the desk sends: plain fields, none of them long."""

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request

FORM_BYTES_MAX: Final = 65_536
FIELDS_MAX: Final = 1_000
FORM: Final = "application/x-www-form-urlencoded"


class Form(dict[str, str]):
    """The fields of a form by name, the last where one stands twice; `all` has each of a name."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def text(self, name: str) -> str:
        """Return a field without the spaces around it; empty where it is missing."""
        return self.get(name, "").replace("\x00", "").strip()

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for key, value in self._pairs if key == name]


async def read_form(request: "Request") -> Form:
    """Return the fields that a request carries.

    Raises:
        HTTPException: it is no form, or too large a one.
    """
    if hasattr(request.state, "form"):
        read: Form = request.state.form
        return read
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "The desk takes plain forms only.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise HTTPException(413, f"A form has at most {FORM_BYTES_MAX:,} bytes.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise HTTPException(400, "That is not a form that this desk has sent.") from None
    form = Form(pairs)
    request.state.form = form
    return form
