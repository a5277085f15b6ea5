"""Create a user and open an account in each of the currencies they asked for."""

from datetime import timedelta
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from . import Context, Payload, Rejected, Result, job
from ._fields import Currency, Email, Username

CURRENCIES_MAX = 20


class CreateUser(Payload):
    """Who, and which currencies they hold."""

    kind: ClassVar[str] = "create_user"

    username: Username
    email: Email
    currencies: Annotated[tuple[Currency, ...], Field(min_length=1, max_length=CURRENCIES_MAX)]


class UserCreated(Result):
    """The user's id, and the id of each account by its currency."""

    user_id: UUID
    accounts: dict[str, UUID]


@job(CreateUser, timeout=timedelta(seconds=10))
async def create_user(ctx: Context, request: CreateUser) -> UserCreated | Rejected:
    """Create the user and the accounts in one transaction, or reject a name that is taken.

    A name is one visible word, and taken in every case, Unicode form and with or without ignorable
    characters (joiners, variation selectors). An address is taken in every case and in both
    forms of its domain (`bücher.example` is `xn--bcher-kva.example`). Only an address
    that mail from anywhere can reach is accepted: no reserved or local domain (`corp.local`,
    `localhost`, `.test`), and at most the 64 characters before the @ that RFC 5321 makes every mail
    server take. Anything else is rejected as `email_invalid`.
    """
    email = normal_email(request.email)
    if isinstance(email, Rejected):
        return email
    user_id = await ctx.store.users.create(username=request.username, email=email)
    if not isinstance(user_id, UUID):
        return Rejected(user_id)
    accounts = await ctx.store.ledger.open_accounts(user_id, request.currencies)
    if not isinstance(accounts, dict):
        return Rejected(accounts)
    return UserCreated(user_id=user_id, accounts=accounts)


def normal_email(address: str) -> str | Rejected:
    """Return the address in its one normal form, or the refusal. Asks no name server."""
    # Heavy, and only the worker has it: services that import this file for its payload do not.
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(address, check_deliverability=False, strict=True).normalized
    except EmailNotValidError:
        # The library's message can quote the address.
        return Rejected("email_invalid", "this is no address that mail from anywhere can reach")
