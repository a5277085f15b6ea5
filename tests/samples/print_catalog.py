"""Print a catalog: a slow job of the machine's own tests, in a queue of its own."""

from typing import Annotated, ClassVar

from pydantic import Field

from . import Context, Payload, Result, job


class PrintCatalog(Payload):
    """How many pages."""

    kind: ClassVar[str] = "print_catalog"

    pages: Annotated[int, Field(ge=1, le=1_000, examples=[10])]


class CatalogPrinted(Result):
    """How many pages were printed."""

    pages: int


@job(PrintCatalog, queue="reports")
async def print_catalog(ctx: Context, request: PrintCatalog) -> CatalogPrinted:
    """Print all pages."""
    await press(ctx)
    return CatalogPrinted(pages=request.pages)


async def press(ctx: Context) -> None:
    """Print; tests hold it up."""
