"""When two names, or two addresses, are the same: one key for each, stored beside them.

Keys are computed here and not by the database: PostgreSQL folds case by Unicode from version 18 on,
and no version drops ignorable characters. The database keeps keys unique, byte by byte.

Python's Unicode tables are the ones of its version. A key can differ between two versions only
for a character that the older one does not know, and such a character stays as it is.
"""

import re
from typing import Final
from unicodedata import normalize

# Unicode's Default_Ignorable_Code_Point: the joiners, variation selectors, fillers and tags, with
# what is reserved for more of their kind. Python's `unicodedata` lacks the property.
IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)

_IGNORABLE: Final = re.compile(f"[{IGNORABLE}]")


def username_key(username: str) -> str:
    """Return what is equal for names that differ only in case, form or ignorable characters.

    Unicode's own comparison of identifiers: toNFKC_Casefold(NFD(name)), definition D147. The key of
    a key is itself, and the key of a name that nobody can see is empty.
    """
    return normalize("NFC", "".join(map(_nfkc_casefold, normalize("NFD", username))))


def _nfkc_casefold(character: str) -> str:
    # Twice, because a compatibility form can hide a capital or an ignorable character.
    return _folded(_folded(character))


def _folded(text: str) -> str:
    return normalize("NFKC", _IGNORABLE.sub("", text).casefold())


def email_key(address: str) -> str:
    """Return what is equal for addresses of one mailbox, as far as anybody but its server can say.

    The domain is compared as a domain: `bücher.example` is `xn--bcher-kva.example`. What is before
    the @ belongs to the server behind it, and is folded no further than to lower case: no server
    delivers `straße` to `strasse`.

    Raises:
        UnicodeError: the domain is none.
    """
    local, _, domain = address.rpartition("@")
    return f"{normalize('NFC', local.lower())}@{_ascii_domain(domain)}"


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    import idna  # large tables, and few domains need them

    return idna.encode(domain, uts46=True).decode()
