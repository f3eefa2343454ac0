"""The package tikv-python: a client of raw keys in pure Python, over its own gRPC stack."""

import asyncio

import pytest
import tikv

MODES = ("1", "1ttl")


@pytest.fixture(params=MODES)
def client(request, start):
    with tikv.RawClient([start(request.param).addr], timeout=30.0) as client:
        yield client


@pytest.fixture
def client_with_ttl(start):
    with tikv.RawClient([start("1ttl").addr]) as client:
        yield client


def test_put_get_delete(client):
    assert client.get(b"user:9") is None
    client.put(b"user:2", b"Grace")
    assert client.get(b"user:2") == b"Grace"
    client.delete(b"user:2")
    client.delete(b"user:2")
    assert client.get(b"user:2") is None


def test_many(client):
    client.put_many({b"user:1": b"Ada", b"user:2": b"Grace", b"user:3": b"Linus"})
    assert client.get_many([b"user:3", b"user:9", b"user:1"]) == {
        b"user:3": b"Linus",
        b"user:1": b"Ada",
    }
    client.delete_many([b"user:1", b"user:9"])
    assert list(client.scan_keys()) == [b"user:2", b"user:3"]


def test_scans(client):
    client.put_many({b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
    assert list(client.scan(b"b", b"d")) == [(b"b", b"2"), (b"c", b"3")]
    assert list(client.scan_keys(b"b", reverse=True)) == [b"d", b"c", b"b"]
    assert list(client.scan(prefix=b"c")) == [(b"c", b"3")]
    assert list(client.scan_keys(limit=2)) == [b"a", b"b"]
    assert list(client.scan_keys(b"x", b"y")) == []


def test_delete_range(client):
    client.put_many({b"user:1": b"1", b"user:2": b"2", b"other": b"3"})
    client.delete_range(prefix=b"user:")
    assert list(client.scan_keys()) == [b"other"]


def test_checksum(client):
    assert client.checksum() == tikv.Checksum(0, 0, 0)
    client.put_many({b"a": b"1", b"b": b"22", b"c": b"333"})
    all, first, rest = client.checksum(), client.checksum(b"a", b"b"), client.checksum(b"b")
    assert (all.keys, all.size) == (3, 9)
    assert first.crc64_xor ^ rest.crc64_xor == all.crc64_xor != 0


def test_time_to_live(client_with_ttl):
    db = client_with_ttl
    db.put(b"otp", b"839201", ttl=300)
    assert 290 <= db.ttl(b"otp") <= 300
    db.put(b"for-ever", b"v")
    assert db.ttl(b"for-ever") is None
    with pytest.raises(KeyError):
        db.ttl(b"none")
    db.put_many({b"x": b"1"}, ttl=1)
    while db.get(b"x") is not None:
        pass
    assert list(db.scan_keys()) == [b"for-ever", b"otp"]


def test_time_to_live_needs_its_mode(server):
    with tikv.RawClient([server.addr]) as db:
        with pytest.raises(tikv.TiKVError):
            db.put(b"k", b"v", ttl=10)
        assert db.get(b"k") is None


def test_compare_and_swap(start):
    with tikv.RawClient(start("1ttl").addr, atomic=True) as locks:
        key = b"lock:job-7"
        assert locks.compare_and_swap(key, None, b"worker-3") == (True, None)
        assert locks.compare_and_swap(key, None, b"worker-4") == (False, b"worker-3")
        assert locks.compare_and_swap(key, b"worker-3", b"worker-5") == (True, b"worker-3")
        assert locks.get(key) == b"worker-5"
        swapped, _ = locks.compare_and_swap(key, b"worker-5", b"worker-6", ttl=100)
        assert swapped and 90 <= locks.ttl(key) <= 100


def test_binary_keys(client):
    pairs = {bytes([b, 0, 255, b]): bytes([255 - b]) for b in range(256)}
    client.put_many(pairs)
    assert list(client.scan()) == sorted(pairs.items())


def test_empty_value(client):
    client.put(b"empty", b"")
    assert client.get(b"empty") == b""
    assert list(client.scan()) == [(b"empty", b"")]


def test_large_values(client):
    large = bytes(range(256)) * 4096
    client.put_many({b"large-%d" % i: large for i in range(5)})
    assert client.get(b"large-4") == large
    assert list(client.scan()) == [(b"large-%d" % i, large) for i in range(5)]


def test_limits_are_errors_and_the_server_goes_on(server):
    with tikv.RawClient([server.addr]) as db:
        with pytest.raises(tikv.TiKVError):
            db.put(b"k" * (8 * 1024 + 1), b"v")
        with pytest.raises(tikv.TiKVError):
            db.put(b"k", bytes(9 << 20))
        db.put(b"k", b"v")
        assert db.get(b"k") == b"v"


def test_many_keys(client):
    pairs = [(b"key-%08d" % i, b"value-%d" % i) for i in range(100_000)]
    client.put_many(pairs)
    assert list(client.scan()) == pairs
    assert list(client.scan_keys(reverse=True)) == [key for key, _ in reversed(pairs)]
    assert client.checksum().keys == 100_000
    client.delete_range(b"")
    assert list(client.scan_keys()) == []


def test_batch_of_ten_thousand(client):
    pairs = {b"key-%08d" % i: b"v" for i in range(10_000)}
    client.put_many(pairs)
    assert client.get_many(list(pairs)) == pairs
    client.delete_many(list(pairs))
    assert list(client.scan_keys()) == []


def test_asyncio_client(server):
    async def calls():
        async with tikv.AsyncRawClient(server.addr) as db:
            await asyncio.gather(*(db.put(f"k{i}".encode(), b"v") for i in range(1000)))
            return [key async for key, _ in db.scan(b"k", b"l")]

    assert len(asyncio.run(calls())) == 1000


def test_client_outlives_server(server):
    with tikv.RawClient([server.addr], timeout=30.0) as db:
        for round in range(3):
            for i in range(100):
                db.put(b"%d/%d" % (round, i), b"v%d" % i)
            server.kill()
            server.launch()
            assert sum(1 for _ in db.scan()) == 100 * (round + 1)
