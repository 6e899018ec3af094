from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
import typing
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    AsyncIqdb,
    CacheConfig,
    ClosedError,
    DatabaseNotFoundError,
    DimensionMismatchError,
    InvalidParameterError,
    Iqdb,
    IqdbConfig,
    LockedError,
    MetadataColumns,
    RecordBatch,
)
from iqdb_core.aio_threads import Steps
from iqdb_core.records import Ids

DIM = 3
VECTORS = np.random.default_rng(5).normal(size=(50, DIM)).astype(np.float32)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test's coroutine in a loop of its own."""

    def run(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), timeout=60))

    run.__name__ = test.__name__
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


async def memory(**settings: Any) -> AsyncIqdb:
    db = await AsyncIqdb.open_in_memory_with(IqdbConfig(dim=DIM, metric="euclidean", **settings))
    await db.upsert_many(range(50), VECTORS, [{"n": i} for i in range(50)])
    return db


def a_batch(first: int) -> RecordBatch:
    return RecordBatch(Ids.from_list([first, first + 1]), VECTORS[:2], MetadataColumns.none(2))


# --- The mirror ---------------------------------------------------------------------------------

SYNCHRONOUS = {"cache_stats"}
MORE_OF_ASYNC = {"contains"}


def public(cls: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def test_both_handles_have_the_same_names() -> None:
    assert set(public(AsyncIqdb)) == set(public(Iqdb)) | MORE_OF_ASYNC


@pytest.mark.parametrize("name", sorted(public(Iqdb)))
def test_a_method_has_the_same_kind_and_signature_in_both(name: Any) -> None:
    ours, theirs = public(AsyncIqdb)[name], public(Iqdb)[name]
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        assert inspect.signature(ours.fget) == inspect.signature(theirs.fget)  # type: ignore[arg-type]
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, classmethod):
        ours, theirs = ours.__func__, theirs.__func__
    expected = inspect.signature(theirs)
    found = inspect.signature(ours)
    parameters = dict(found.parameters)
    returned = expected.return_annotation
    if returned == "Iqdb":
        # A handle is made, with a setting that only this one has.
        workers = parameters.pop("workers")
        assert (workers.kind, workers.default) == (inspect.Parameter.KEYWORD_ONLY, None)
        returned = "Self"
    if inspect.isgeneratorfunction(theirs):
        assert inspect.isasyncgenfunction(ours)
        returned = re.sub(r"^Iterator\[(.*)\]$", r"AsyncGenerator[\1, None]", returned)
    else:
        assert inspect.iscoroutinefunction(ours) == (name not in SYNCHRONOUS)
    assert list(parameters.values()) == list(expected.parameters.values())
    assert found.return_annotation == returned
    overloads = [inspect.signature(overload) for overload in typing.get_overloads(theirs)]
    assert [inspect.signature(overload) for overload in typing.get_overloads(ours)] == overloads
    assert ours.__doc__


# --- Work ---------------------------------------------------------------------------------------


@in_loop
async def test_a_database_lives_through_every_operation(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    async with await AsyncIqdb.open(path, DIM, "euclidean") as db:
        assert (db.dim, db.metric.value, db.read_only, db.is_empty) == (DIM, "euclidean", False, True)
        assert db.path == str(path.resolve())
        await db.upsert("a", VECTORS[0], {"n": 0})
        assert await db.upsert_many([1, 2], VECTORS[1:3]) == 2
        assert await db.upsert_batch(a_batch(10)) == 2
        assert (await db.bulk_load([a_batch(20)])).rows_added == 2
        assert len(db) == 7
        assert not db.is_empty
        assert await db.contains("a")
        assert not await db.contains("b")
        found = await db.get("a")
        assert found is not None
        assert found[0].tolist() == VECTORS[0].tolist()
        assert await db.vector_bytes("a") == VECTORS[0].tobytes()
        assert await db.metadata("a") == {"n": 0}
        assert await db.delete(1) is True
        assert await db.delete([2, 99]) == 1
        assert await db.delete_many([10, 11]) == 2
        assert (await db.info())["n_records"] == 3
        assert (await db.compact()).n_rows == 3
        assert not (await db.flush()).changed
        assert not (await db.optimize()).changed
        assert not await db.refresh()
        assert [hit.id for hit in await db.search(VECTORS[0], 1)] == ["a"]
        assert (await db.search_with(VECTORS[0], 1, "n = 0"))[0].id == "a"
        assert (await db.search_batch(VECTORS[:1], 1))[0][0].id == "a"
        assert (await db.search_batch_with(VECTORS[:1], 1, "n = 0"))[0][0].id == "a"
        assert (await db.search_buffers(VECTORS[:1], 1, 1))[0][0].id == "a"
        ids, distances = await db.search_arrays(VECTORS[:1], 1)
        assert (ids.tolist(), distances.tolist()) == ([["a"]], [[0.0]])
        assert [record_id async for record_id in db.ids()] == ["a", 20, 21]
        assert repr(db) == f"<AsyncIqdb {str(path)!r}, 3 records, dim 3, euclidean>"
    async with await AsyncIqdb.open_existing(path, read_only=True) as reader:
        assert reader.read_only
        assert len(reader) == 3


@in_loop
async def test_every_way_of_opening_gives_a_handle(tmp_path: Path) -> None:
    config = IqdbConfig(dim=DIM, cache=CacheConfig(capacity=5))
    report = await AsyncIqdb.create_from(tmp_path / "a.iqdb", config, [a_batch(1)])
    assert report.n_rows == 2
    handles = [
        await AsyncIqdb.open_existing(tmp_path / "a.iqdb"),
        await AsyncIqdb.create(tmp_path / "b.iqdb", config),
        await AsyncIqdb.open_with(tmp_path / "c.iqdb", config, workers=1),
        await AsyncIqdb.open_in_memory(DIM),
        await AsyncIqdb.open_in_memory_with(config),
    ]
    assert [len(db) for db in handles] == [2, 0, 0, 0, 0]
    assert [db.cache_stats().capacity for db in handles] == [0, 5, 5, 0, 5]
    assert handles[1].config.cache == config.cache
    for db in handles:
        await db.close()


@in_loop
async def test_batches_are_iterated_in_order() -> None:
    db = await memory()
    found = [record_id async for batch in db.batches(batch_rows=7) for record_id in batch.ids.to_list()]
    assert found == list(range(50))
    async for batch in db.batches(filter="n >= 45", vectors=False):
        assert batch.vectors.shape == (5, 0)
        break
    # An iteration that was broken off gives its lease back: the loop closes it, in a task of its own.
    for _ in range(5):
        await asyncio.sleep(0)
    assert db._db._store.view().leases == 0
    await db.close()


@in_loop
async def test_many_searches_run_at_once_from_one_loop() -> None:
    db = await memory(threads=1, cache=CacheConfig(capacity=8))
    expected = [db._db.search(vector, 3) for vector in VECTORS]
    found = await asyncio.gather(*(db.search(vector, 3) for vector in VECTORS for _ in range(4)))
    assert found == [hits for hits in expected for _ in range(4)]
    assert db.cache_stats().lookups() == 5 * len(VECTORS)
    await db.clear_cache()
    assert db.cache_stats().len == 0
    await db.close()


@in_loop
async def test_the_loop_goes_on_while_a_write_takes_its_time() -> None:
    db = await memory()
    go = threading.Event()

    def slow() -> Any:
        yield a_batch(100)
        assert go.wait(30)

    load = asyncio.create_task(db.bulk_load(slow()))
    later = asyncio.create_task(db.upsert(200, VECTORS[0]))
    # Searches have threads of their own, and the state before the writes.
    for _ in range(20):
        assert len(await db.search_batch(VECTORS, 2)) == 50
    assert not load.done()
    assert not later.done()
    assert len(db) == 50
    go.set()
    assert (await load).n_rows == 52
    await later
    assert len(db) == 53
    await db.close()


@in_loop
async def test_writes_take_place_in_the_order_of_their_calls() -> None:
    db = await memory()
    await asyncio.gather(*(db.upsert("x", VECTORS[0], {"version": i}) for i in range(100)))
    assert await db.metadata("x") == {"version": 99}
    await db.close()


@in_loop
async def test_work_sees_the_context_of_its_task() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen = []

    def source() -> Any:
        seen.append(variable.get())
        yield a_batch(100)

    db = await memory()
    variable.set("mine")
    await db.bulk_load(source(), progress=lambda _: seen.append(threading.current_thread().name))
    assert seen[0] == "mine"
    assert seen[1].startswith("iqdb-write")
    await db.close()


# --- Failures -----------------------------------------------------------------------------------


@in_loop
async def test_errors_reach_the_task_that_awaits(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotFoundError):
        await AsyncIqdb.open_existing(tmp_path / "missing.iqdb")
    with pytest.raises(InvalidParameterError, match="workers"):
        await AsyncIqdb.open_in_memory(DIM, workers=0)
    db = await memory()
    with pytest.raises(DimensionMismatchError):
        await db.upsert(1, [1.0])
    with pytest.raises(DimensionMismatchError):
        await db.search([1.0], 1)
    with pytest.raises(InvalidParameterError):
        async for _ in db.batches(batch_rows=0):
            pass

    def broken() -> Any:
        yield a_batch(100)
        message = "the source is broken"
        raise StopAsyncIteration(message)

    with pytest.raises(StopAsyncIteration, match="the source is broken"):
        await db.bulk_load(broken())
    assert len(db) == 50
    results = await asyncio.gather(
        db.search(VECTORS[0], 1), db.search([0.0], 1), db.search(VECTORS[1], 1), return_exceptions=True
    )
    assert [type(result) for result in results] == [list, DimensionMismatchError, list]
    await db.close()


@in_loop
async def test_a_closed_handle_says_so() -> None:
    db = await memory()
    await db.close()
    await db.close()
    for work in (db.search(VECTORS[0], 1), db.upsert(1, VECTORS[0]), db.get(1), db.compact()):
        with pytest.raises(ClosedError):
            await work
    with pytest.raises(ClosedError):
        async for _ in db.batches():
            pass
    with pytest.raises(ClosedError):
        len(db)
    assert repr(db) == "<AsyncIqdb '<memory>', closed>"


@in_loop
async def test_closing_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    db = await AsyncIqdb.open(tmp_path / "a.iqdb", DIM)
    await asyncio.gather(db.upsert(1, VECTORS[0]), *(db.get(i) for i in range(20)))
    writer = next(iter(db._threads._writer._threads))
    await db.close()
    writer.join(30)
    assert not [thread for thread in set(threading.enumerate()) - before if "iqdb" in thread.name]


@in_loop
async def test_closing_waits_for_the_writes_called_before(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    db = await AsyncIqdb.open(path, DIM)
    writes = [asyncio.create_task(db.upsert(i, VECTORS[i])) for i in range(10)]
    await asyncio.sleep(0)
    await db.close(compact=False)
    await asyncio.gather(*writes)
    with Iqdb.open_existing(path) as plain:
        assert len(plain) == 10


@in_loop
async def test_leaving_the_block_by_an_exception_releases_without_compaction(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"

    async def fail() -> None:
        async with await AsyncIqdb.open(path, DIM) as db:
            await db.upsert(1, VECTORS[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert path.with_name("a.iqdb.wal").exists()
    async with await AsyncIqdb.open_existing(path) as db:
        assert await db.contains(1)
    assert not path.with_name("a.iqdb.wal").exists()


# --- Cancellation -------------------------------------------------------------------------------


class Gate:
    """A source of batches that tells when it was begun, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def batches(self) -> Any:
        self.begun.set()
        assert self.go.wait(30)
        yield a_batch(100)


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


@in_loop
async def test_a_cancelled_write_that_had_begun_is_finished_and_one_that_had_not_is_not_done() -> None:
    db = await memory()
    gate = Gate()
    begun = asyncio.create_task(db.bulk_load(gate.batches()))
    waiting = asyncio.create_task(db.upsert("never", VECTORS[0]))
    last = asyncio.create_task(db.upsert("last", VECTORS[0]))
    await wait_for(gate.begun)
    for task in (begun, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(db) == 50
    gate.go.set()
    await last
    assert await db.contains(100)
    assert not await db.contains("never")
    await db.close()


@in_loop
async def test_a_cancelled_close_closes_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    db = await AsyncIqdb.open(path, DIM)
    gate = Gate()
    load = asyncio.create_task(db.bulk_load(gate.batches()))
    await wait_for(gate.begun)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.go.set()
    await load
    writer = next(iter(db._threads._writer._threads))
    await asyncio.to_thread(writer.join, 30)
    with Iqdb.open_existing(path) as plain:
        assert len(plain) == 2


@in_loop
async def test_a_cancelled_open_leaves_no_lock_behind(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, DIM).close()
    begun, go, opened = threading.Event(), threading.Event(), []
    original = Iqdb.open_existing

    def slow(*arguments: Any, **named: Any) -> Iqdb:
        begun.set()
        assert go.wait(30)
        opened.append(original(*arguments, **named))
        return opened[0]

    monkeypatch.setattr(Iqdb, "open_existing", slow)
    task = asyncio.create_task(AsyncIqdb.open_existing(path))
    await wait_for(begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    opener = next(thread for thread in threading.enumerate() if thread.name.startswith("iqdb-open"))
    go.set()
    await asyncio.to_thread(opener.join, 30)
    assert opened[0]._store.closed
    monkeypatch.undo()
    async with await AsyncIqdb.open_existing(path):
        with pytest.raises(LockedError):
            await AsyncIqdb.open_existing(path)


@in_loop
async def test_a_cancelled_iteration_gives_its_lease_back_behind_the_step_at_work() -> None:
    begun, go, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Any:
        try:
            begun.set()
            assert go.wait(30)
            yield 1
        finally:
            closed.set()

    steps: Steps[int] = Steps(slow())
    step = asyncio.create_task(asyncio.to_thread(steps.next))
    await wait_for(begun)
    steps.close()
    assert not closed.is_set()
    go.set()
    assert await step == 1
    assert closed.is_set()
    assert steps.next() is None


def test_one_handle_serves_one_loop_after_another() -> None:
    db = asyncio.run(memory())
    assert asyncio.run(db.search(VECTORS[0], 1))[0].id == 0
    asyncio.run(db.close())


def test_an_open_handle_can_be_taken_over() -> None:
    plain = Iqdb.open_in_memory(DIM)
    plain.upsert(1, VECTORS[0])

    async def use() -> None:
        async with AsyncIqdb(plain, workers=2) as db:
            assert await db.contains(1)

    asyncio.run(use())
    with pytest.raises(ClosedError):
        len(plain)
