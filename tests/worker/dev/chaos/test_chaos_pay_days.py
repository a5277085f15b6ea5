"""A pay day ends as it must, and whatever does not is said."""

import random
import time

import pytest

from tests.bank.kit import open_account
from tests.worker.loop.kit import eventually
from worker.dev.chaos.pay_days import ERRANDS, PayDays
from worker.dev.shop import listening
from worker.dev.workload import Wallet

pytestmark = pytest.mark.slow

LONGEST_S = 60.0
BODY = b"{}"


@pytest.fixture
async def pay_days(targets, own_sessions):
    accounts = [await open_account(own_sessions, balance="1000.00") for _ in range(6)]
    wallets = [Wallet(account, "EUR") for account in accounts]
    with listening(is_often_busy=True) as shop:
        made = PayDays(targets.connections, shop, targets.prefix, wallets, random.Random(1))
        await made.open()
        yield made


async def test_without_a_worker_every_part_is_missing(pay_days):
    await pay_days.order()

    wrong = (await pay_days.end()).wrong

    assert [line.partition(":")[0] for line in wrong] == [
        "jobs of pay days",
        "reports of payouts",
        "messages announced",
    ]


@pytest.mark.usefixtures("running_worker")
async def test_with_a_worker_nothing_is_wrong_but_what_is_planted_afterwards(pay_days):
    await pay_days.order()
    await pay_days.order()

    async def nothing_is_wrong():
        return not (await pay_days.end()).wrong

    await eventually(nothing_is_wrong, deadline_s=LONGEST_S)
    ended = await pay_days.end()

    assert (ended.payouts, ended.errands, ended.messages) == (2, 2 * ERRANDS, 4)
    assert sum(pay_days.moved_cents.values()) == 0

    pay_days.shop.heard["another"] += 1
    [wrong] = (await pay_days.end()).wrong
    assert wrong.startswith("messages to the shop")


def test_a_shop_takes_what_is_signed_and_counts_what_is_not():
    with listening() as shop:
        now = int(time.time())
        assert shop.answer("one", now, BODY, ["v1,no"]) == 400
        assert (shop.forged, shop.heard.total()) == (1, 0)
