"""Transactions of the package tikv-client: bindings over client-rust 0.2."""

import asyncio
import subprocess
import sys
import time

import pytest
from tikv_client import TransactionClient, asynchronous

# More than a lock lives whose client is gone.
PATIENCE_S = 60

pytestmark = pytest.mark.usefixtures("event_loop")


@pytest.fixture
def client(server):
    return TransactionClient.connect([server.addr])


@pytest.fixture(params=(False, True), ids=("optimistic", "pessimistic"))
def pessimistic(request):
    return request.param


def write(client, pairs, pessimistic=False):
    txn = client.begin(pessimistic=pessimistic)
    for key, value in pairs.items():
        txn.put(key, value)
    txn.commit()


def now(client):
    return client.snapshot(client.current_timestamp(), pessimistic=False)


def everything(client):
    """Reads all until no lock is in the way: the client gives up before a lock has expired."""
    began = time.monotonic()
    while True:
        try:
            return dict(now(client).scan(b"", None, 10_000))
        except Exception:
            if time.monotonic() - began > PATIENCE_S:
                raise


def test_commit(client, pessimistic):
    txn = client.begin(pessimistic=pessimistic)
    assert txn.get(b"k1") is None
    txn.put(b"k1", b"Hello")
    txn.put(b"k2", b"World")
    assert txn.get(b"k1") == b"Hello"
    assert now(client).get(b"k1") is None
    txn.commit()
    assert now(client).get(b"k1") == b"Hello"
    assert sorted(now(client).batch_get([b"k1", b"none", b"k2"])) == [
        (b"k1", b"Hello"),
        (b"k2", b"World"),
    ]


def test_rollback(client, pessimistic):
    write(client, {b"k": b"old"})
    txn = client.begin(pessimistic=pessimistic)
    txn.put(b"k", b"new")
    txn.delete(b"other")
    txn.rollback()
    assert now(client).get(b"k") == b"old"
    with pytest.raises(Exception):
        txn.commit()


def test_delete_and_existence(client, pessimistic):
    write(client, {b"a": b"1", b"b": b"2"}, pessimistic)
    txn = client.begin(pessimistic=pessimistic)
    assert txn.key_exists(b"a")
    txn.delete(b"a")
    assert not txn.key_exists(b"a")
    txn.commit()
    assert not now(client).key_exists(b"a")
    assert now(client).key_exists(b"b")


def test_scans(client):
    write(client, {b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
    txn = client.begin()
    txn.put(b"bb", b"mine")
    txn.delete(b"c")
    assert list(txn.scan(b"b", b"z", 10)) == [(b"b", b"2"), (b"bb", b"mine"), (b"d", b"4")]
    assert list(txn.scan_keys(b"a", None, 3)) == [b"a", b"b", b"bb"]
    assert list(txn.scan(b"b", b"d", 10, include_start=False, include_end=True)) == [
        (b"bb", b"mine"),
        (b"d", b"4"),
    ]
    txn.rollback()
    assert list(now(client).scan_keys(b"", None, 10)) == [b"a", b"b", b"c", b"d"]


def test_snapshots_of_the_past(client):
    snapshots = []
    for round in range(5):
        snapshots.append(now(client))
        write(client, {b"k": b"%d" % round})
    assert [then.get(b"k") for then in snapshots] == [None, b"0", b"1", b"2", b"3"]


def test_conflict(client):
    first, second = client.begin(), client.begin()
    first.put(b"k", b"first")
    second.put(b"k", b"second")
    first.commit()
    with pytest.raises(Exception):
        second.commit()
    second.rollback()
    assert now(client).get(b"k") == b"first"


def test_locked_keys_prevent_write_skew(client):
    write(client, {b"x": b"1", b"y": b"1"})
    first, second = client.begin(), client.begin()
    first.lock_keys([b"y"])
    first.put(b"x", b"0")
    assert second.get_for_update(b"x") == b"1"
    second.put(b"y", b"0")
    first.commit()
    with pytest.raises(Exception):
        second.commit()
    second.rollback()
    assert now(client).get(b"y") == b"1"


def test_insert(client, pessimistic):
    write(client, {b"there": b"1"})
    txn = client.begin(pessimistic=pessimistic)
    with pytest.raises(Exception):
        txn.insert(b"there", b"2")
        txn.commit()
    txn.rollback()
    txn = client.begin(pessimistic=pessimistic)
    txn.insert(b"new", b"2")
    txn.commit()
    assert everything(client) == {b"new": b"2", b"there": b"1"}


def test_reads_for_update(client):
    write(client, {b"a": b"1", b"b": b"1"})
    txn = client.begin(pessimistic=True)
    write(client, {b"a": b"2"})
    assert txn.get(b"a") == b"1"
    assert txn.get_for_update(b"a") == b"2"
    assert sorted(txn.batch_get_for_update([b"a", b"b", b"none"])) == [(b"a", b"2"), (b"b", b"1")]
    txn.put(b"a", b"3")
    txn.commit()
    assert now(client).get(b"a") == b"3"


def test_large_transaction(client, pessimistic):
    pairs = {b"key-%08d" % i: b"value-%d" % i for i in range(3_000)}
    txn = client.begin(pessimistic=False)
    for key, value in pairs.items():
        txn.put(key, value)
    txn.commit()
    assert everything(client) == pairs


def test_asynchronous_transfers(server, event_loop):
    accounts = [b"account-%02d" % i for i in range(10)]

    async def transfer(client, number):
        source, target = accounts[number % 10], accounts[(number * 7 + 3) % 10]
        if source == target:
            return
        while True:
            txn = await client.begin(pessimistic=number % 2 == 0)
            try:
                has = int(await txn.get_for_update(source))
                other = int(await txn.get_for_update(target))
                await txn.put(source, b"%d" % (has - 1))
                await txn.put(target, b"%d" % (other + 1))
                await txn.commit()
                return
            except Exception:
                await txn.rollback()

    async def calls():
        client = await asynchronous.TransactionClient.connect([server.addr])
        txn = await client.begin(pessimistic=False)
        for account in accounts:
            await txn.put(account, b"100")
        await txn.commit()
        await asyncio.gather(*(transfer(client, number) for number in range(60)))

    event_loop.run_until_complete(calls())
    found = everything(TransactionClient.connect([server.addr]))
    assert sum(map(int, found.values())) == 1000


# Transfers for ever, and says which were acknowledged.
TRANSFERS = """
import asyncio, os, sys
from tikv_client import TransactionClient
asyncio.set_event_loop(asyncio.new_event_loop())
client = TransactionClient.connect([sys.argv[1]])
number = 0
while True:
    number += 1
    txn = client.begin(pessimistic=number % 2 == 0)
    try:
        source, target = b"a%d" % (number % 5), b"a%d" % ((number * 3 + 1) % 5)
        if source != target:
            has, other = int(txn.get_for_update(source)), int(txn.get_for_update(target))
            txn.put(source, b"%d" % (has - 1))
            txn.put(target, b"%d" % (other + 1))
        receipt = "receipt-%d-%d" % (os.getpid(), number)
        txn.put(receipt.encode(), b"0")
        txn.commit()
        print(receipt, flush=True)
    except Exception:
        txn.rollback()
"""


def test_killed_clients(server, client):
    write(client, {b"a%d" % i: b"100" for i in range(5)})
    receipts = []
    for round in range(3):
        doomed = [
            subprocess.Popen(
                [sys.executable, "-c", TRANSFERS, server.addr],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(2)
        ]
        for process in doomed:
            receipts += [process.stdout.readline().strip() for _ in range(5 + round)]
        for process in doomed:
            process.kill()
            receipts += [line.strip() for line in process.stdout]
            process.wait()
        found = everything(client)
        assert sum(map(int, found.values())) == 500
        assert all(receipt.encode() in found for receipt in receipts)


def test_client_outlives_server(server, client):
    for round in range(2):
        write(client, {b"%d/%d" % (round, i): b"v%d" % i for i in range(50)})
        server.kill()
        server.launch()
        found = everything(client)
        assert len(found) == 50 * (round + 1)
