"""The list of jobs: what is asked for stands in the address."""

from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import RedirectResponse

from db.desk import COUNTED_MAX, count_wanted, page_of_jobs
from db.models import JOB_STATES
from db.operations import find_job
from jobs import registry
from jobs._registry import queues
from jobs._wire import job_id_of
from worker.desk.filters import Asked, read_position, write_position
from worker.desk.payloads import public_fields
from worker.desk.web import desk_of, render, root_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def jobs(request: "Request") -> "Response":
    """Show a page of the jobs asked for, newest first."""
    asked = Asked.read(request.query_params)
    before = read_position(request.query_params.get("before", ""))
    after = read_position(request.query_params.get("after", ""))
    async with desk_of(request.app).reading() as session:
        page = await page_of_jobs(session, asked.wanted(), before=before, after=after)
    kind = registry().get(asked.kind)
    return render(
        request,
        "jobs.html",
        asked=asked,
        page=page,
        newer=write_position(page.lines[0]) if page.lines and page.has_newer else "",
        older=write_position(page.lines[-1]) if page.lines and page.has_older else "",
        kinds=sorted(registry()),
        queues=queues(),
        states=JOB_STATES,
        fields=sorted(public_fields(kind.payload)) if kind else [],
    )


async def count(request: "Request") -> "Response":
    """Return how many jobs are asked for, as a part of the list that arrives after it."""
    asked = Asked.read(request.query_params)
    async with desk_of(request.app).reading() as session:
        found = await count_wanted(session, asked.wanted())
    return render(request, "count.html", found=found, bound=COUNTED_MAX)


async def find(request: "Request") -> "Response":
    """Go to the job whose id, arq's id or key was given."""
    asked = request.query_params.get("q", "").replace("\x00", "").strip()[:200]
    if not asked:
        return RedirectResponse(f"{root_of(request)}/jobs", 303)
    async with desk_of(request.app).reading() as session:
        found = await find_job(session, job_id_of(asked))
    if found is not None:
        return RedirectResponse(f"{root_of(request)}/jobs/{found.id}", 303)
    return RedirectResponse(f"{root_of(request)}/jobs?key={quote(asked, safe='')}", 303)
