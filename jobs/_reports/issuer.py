"""Who makes the reports: what stands at their head."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

LOGO_SUFFIXES: Final = (".svg", ".png", ".jpg")
LOGO_BYTES_MAX: Final = 1024 * 1024
LINES_MAX: Final = 6


class IssuerError(Exception):
    """`TELLER_REPORTS_ISSUER` or `TELLER_REPORTS_LOGO` cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A name, the lines of an address, and a logo; any of them may be missing."""

    lines: tuple[str, ...] = ()
    logo: bytes | None = None
    logo_name: str | None = None
    """The name that the logo's file has beside a page: `logo.svg`."""

    @classmethod
    def from_settings(cls, issuer: str, logo: str) -> Self:
        """Return what the settings say.

        Args:
            issuer: the lines, divided by `|`.
            logo: the path of a picture, or nothing. It is read here, once.

        Raises:
            IssuerError: the picture cannot be read or is of no known form, or too much is said.
        """
        lines = tuple(line.strip() for line in issuer.split("|") if line.strip())
        if len(lines) > LINES_MAX:
            raise IssuerError(f"TELLER_REPORTS_ISSUER: at most {LINES_MAX} lines, divided by |")
        if not logo:
            return cls(lines)
        suffix = Path(logo).suffix.lower()
        if suffix not in LOGO_SUFFIXES:
            raise IssuerError("TELLER_REPORTS_LOGO: give a file that ends with .svg, .png or .jpg")
        try:
            picture = Path(logo).read_bytes()
        except OSError as error:
            raise IssuerError(f"TELLER_REPORTS_LOGO: {error.strerror}") from None
        if len(picture) > LOGO_BYTES_MAX:
            raise IssuerError(f"TELLER_REPORTS_LOGO: larger than {LOGO_BYTES_MAX} bytes")
        return cls(lines, picture, f"logo{suffix}")

    def lay_logo(self, folder: Path) -> None:
        """Write the logo, if there is one, into the folder where a page is set."""
        if self.logo is not None and self.logo_name is not None:
            (folder / self.logo_name).write_bytes(self.logo)


NOBODY: Final = Issuer()
