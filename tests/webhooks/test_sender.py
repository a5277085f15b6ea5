"""A webhook on its way: over real HTTP, to no private address unless that is allowed."""

import asyncio
import socket
from datetime import UTC, datetime

import pytest

from jobs._webhooks.addresses import AddressRefusedError
from jobs._webhooks.messages import Answer, Verdict, headers_of, new_secret
from jobs._webhooks.sender import Sender
from tests.webhooks.receiver import receiving

SECRET = new_secret()


@pytest.fixture
def receiver():
    with receiving() as started:
        yield started


@pytest.fixture
async def sender():
    made = Sender(private_allowed=True)
    yield made
    await made.aclose()


async def test_it_arrives_signed_as_it_was_sent(sender, receiver):
    answer = await sender.post(receiver.url, "msg-1", b'{"a":1}', [SECRET])

    [came] = receiver.requests
    assert answer == Answer(Verdict.DELIVERED, 200)
    assert (came.path, came.body) == ("/hook", b'{"a":1}')
    assert came.headers["content-type"] == "application/json"
    sent_at = datetime.fromtimestamp(int(came.headers["webhook-timestamp"]), UTC)
    expected = headers_of("msg-1", sent_at, came.body, [SECRET])
    assert expected.items() <= came.headers.items()


async def test_a_redirect_is_not_followed(sender, receiver):
    receiver.answer((302, {"location": receiver.url + "/elsewhere"}))

    answer = await sender.post(receiver.url, "msg-1", b"{}", [SECRET])

    assert answer == Answer(Verdict.FAILED, 302, "the receiver answered 302")
    assert len(receiver.requests) == 1


async def test_an_answer_without_end_is_not_read(sender, receiver):
    receiver.answer((200, {"content-length": str(10**12)}))

    answer = await sender.post(receiver.url, "msg-1", b"{}", [SECRET])

    assert answer.verdict is Verdict.DELIVERED


async def test_a_private_address_is_refused_before_anything_is_sent(receiver):
    sender = Sender(private_allowed=False)

    with pytest.raises(AddressRefusedError, match="TELLER_WEBHOOK_PRIVATE"):
        await sender.post(receiver.url, "msg-1", b"{}", [SECRET])

    await sender.aclose()
    assert receiver.requests == []


async def test_a_name_that_leads_to_a_private_address_beside_a_public_one_is_refused(
    receiver, monkeypatch
):
    sender = Sender(private_allowed=False)

    async def look_up(*_, **__):
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("93.184.215.14", 80)), (*kind, ("127.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    with pytest.raises(AddressRefusedError):
        await sender.post("http://two-faced.example/hook", "msg-1", b"{}", [SECRET])

    await sender.aclose()


async def test_the_connection_goes_to_the_address_that_was_checked(receiver, monkeypatch):
    """A second look-up could lead elsewhere; the name is still what the receiver is told."""
    sender = Sender(private_allowed=False)
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo
    asked = []

    async def only_once(host, *rest, **options):
        if host == "hooks.example":
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
        return await look_up(host, *rest, **options)

    monkeypatch.setattr(loop, "getaddrinfo", only_once)
    monkeypatch.setattr("jobs._webhooks.addresses.is_public", lambda _address: True)
    url = receiver.url.replace("127.0.0.1", "hooks.example")

    answer = await sender.post(url, "msg-1", b"{}", [SECRET])

    await sender.aclose()
    assert answer.verdict is Verdict.DELIVERED
    assert asked == ["hooks.example"]
    assert receiver.requests[0].headers["host"].startswith("hooks.example:")
