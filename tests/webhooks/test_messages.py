"""What is signed, where it may go, and what a receiver's answer means."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from jobs._webhooks.addresses import is_public
from jobs._webhooks.messages import (
    RETRY_AFTER_MAX,
    Answer,
    Verdict,
    WebhookURLError,
    check_url,
    headers_of,
    judge,
    new_secret,
    sign,
)


def failed(status, retry_after=None):
    return Answer(Verdict.FAILED, status, f"the receiver answered {status}", retry_after)


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_signature_is_the_one_of_the_standard_s_own_example():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    assert (
        sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_message_is_signed_with_every_secret_so_that_one_can_be_replaced():
    old, new = new_secret(), new_secret()
    headers = headers_of("a", NOW, b"{}", [new, old])
    timestamp = headers["webhook-timestamp"]

    assert datetime.fromtimestamp(int(timestamp), UTC) == NOW
    for secret, signature in zip([new, old], headers["webhook-signature"].split(), strict=True):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"a.{timestamp}.{{}}".encode(), hashlib.sha256).digest()
        assert signature == f"v1,{base64.b64encode(digest).decode()}"


def test_no_two_secrets_are_the_same():
    assert len({new_secret() for _ in range(100)}) == 100


def test_a_secret_that_is_no_base64_is_refused_without_being_repeated():
    with pytest.raises(ValueError, match="whsec_ and base64") as refused:
        sign("whsec_not base64!", "a", 0, b"")
    assert "not base64!" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (200, None, Answer(Verdict.DELIVERED, 200)),
        (204, "60", Answer(Verdict.DELIVERED, 204)),
        (301, None, failed(301)),
        (410, None, Answer(Verdict.GONE, 410)),
        (429, "120", failed(429, timedelta(minutes=2))),
        (429, "-5", failed(429, timedelta())),
        (503, "Wed, 25 Nov 2026 12:10:00 GMT", failed(503, timedelta(minutes=10))),
        (503, "Wed, 25 Nov 2026 11:00:00 GMT", failed(503, timedelta())),
        (503, "9" * 400, failed(503)),
        (503, "99999999999", failed(503, RETRY_AFTER_MAX)),
        (503, "soon", failed(503)),
        (500, None, failed(500)),
    ],
)
def test_an_answer_means(status, retry_after, expected):
    assert judge(status, retry_after, NOW) == expected


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)
def test_an_address_of_a_private_network_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example/hook",
        "ftp://shop.example/hook",
        "file:///etc/passwd",
        "https://",
        "https://user:pass@shop.example/hook",
        "https://shop.example/hook#part",
        "https://shop.example/" + "a" * 2_000,
    ],
)
def test_a_url_that_no_webhook_can_go_to_is_refused(url):
    with pytest.raises(WebhookURLError, match="webhook's URL"):
        check_url(url)
