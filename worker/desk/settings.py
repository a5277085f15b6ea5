"""The desk's own settings; what it shares with workers is in `worker.settings`."""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs._payload import validation_message
from worker.errors import StartupError
from worker.settings import ENV_FILE

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
PORT_DEFAULT: Final = 8_090


class DeskSettings(BaseSettings):
    """Who is let in, and what the pages are called. Every name begins with `TELLER_DESK_`."""

    model_config = SettingsConfigDict(
        env_prefix="TELLER_DESK_",
        env_file=ENV_FILE,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = PORT_DEFAULT
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """The prefix under which a proxy shows the desk, such as `/ops`."""
    name: Annotated[str, Field(max_length=40)] = ""
    """What this instance is called, shown on every page: production must not look like staging."""
    users: str | None = None
    """A file with a line for each user: name, role, and what `desk --hash` printed."""
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""
    """The header in which a proxy says who is there. Only that proxy may reach the desk then."""
    operators: str = ""
    """Those of the proxy's users who may act, by comma; `*` is all. The others may look."""
    session_s: Annotated[int, Field(ge=60, le=86_400)] = 8 * 3_600
    """How long a session lasts from its beginning."""
    secret: Annotated[str, Field(repr=False, max_length=500)] = ""
    """What sessions are signed with, where several processes serve one desk; otherwise each process
    makes one, and its sessions end with it."""
    trace_url: Annotated[
        str, Field(pattern=r"^(https?://[^\s\"'<>]*\{trace_id\}[^\s\"'<>]*)?$")
    ] = ""
    """Where a trace is seen: a URL with `{trace_id}` in it."""
    frame_ancestors: Literal["'none'", "'self'"] = "'none'"
    """Who may show the desk in a frame."""

    @property
    def decides_who(self) -> bool:
        """Whether users or a proxy say who may come in; otherwise a link that works once does."""
        return bool(self.users or self.user_header)


def load_desk_settings() -> DeskSettings:
    """Return the desk's settings of this process's environment.

    Raises:
        StartupError: one of them is wrong; the message names it.
    """
    try:
        return DeskSettings()
    except ValidationError as error:
        raise StartupError(f"settings of the desk: {validation_message(error)}") from None
