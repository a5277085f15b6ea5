"""Users: no two have one name or one address, by the database."""

from typing import TYPE_CHECKING, Literal

from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from db.bank.models import User
from db.bank.names import email_key, username_key

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

INSERT_USER = text("""
    INSERT INTO users (username, username_key, email, email_key)
    VALUES (:username, :username_key, :email, :email_key)
    ON CONFLICT DO NOTHING RETURNING id
""")

USERNAME_TAKEN = text("SELECT EXISTS (SELECT FROM users WHERE username_key = :username_key)")


class Users:
    """Users as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def create(
        self, *, username: str, email: str
    ) -> "UUID | Literal['username_taken', 'email_taken']":
        """Insert a user, or return which name is taken.

        Args:
            username: kept as it is written; unique by its `username_key`.
            email: a valid address, kept as it is written; unique by its `email_key`.
        """
        key = username_key(username)
        user_id: UUID | None = await self._session.scalar(
            INSERT_USER,
            {
                "username": username,
                "username_key": key,
                "email": email,
                "email_key": email_key(email),
            },
        )
        if user_id is not None:
            return user_id
        # The insert has waited for whoever held the name, so a new statement sees them.
        taken = await self._session.scalar(USERNAME_TAKEN, {"username_key": key})
        return "username_taken" if taken else "email_taken"

    async def get(self, user_id: "UUID") -> User | None:
        """Return a user with their accounts loaded, or None."""
        query = select(User).where(User.id == user_id).options(selectinload(User.accounts))
        found: User | None = await self._session.scalar(query)
        return found
