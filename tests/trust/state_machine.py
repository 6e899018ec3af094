"""A handle, in memory or on a file, is driven against a dict, through crashes and reopenings.

Hypothesis chooses the steps: writes of all kinds, compactions, other indexes, searches with and without
filters, readers, threads that read while another one writes, power cuts and kills. After every step the
handle shows exactly the records and the index settings that the model has, in their order.
"""

from __future__ import annotations

import math
import random
import threading
import unittest.mock
from typing import Any

import numpy as np
from crash_states import Crashes
from crashes import LOG, PATH
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from recorder import EMPTY, Image, MemoryFiles, Trace
from workloads import HNSW, IVF, PQ, State, Work, batch_of, state_of, vector_of

from iqdb_core import CacheConfig, DatabaseNotFoundError, Filter, FlatConfig, Iqdb
from iqdb_core.index import hnsw, ivf

INDEXES = {"flat": FlatConfig(), "hnsw": HNSW, "ivf": IVF, "pq": PQ}
some_ids = st.integers(0, 30) | st.sampled_from(["a", "b", "ç"]) | st.sampled_from([b"a", b"\0"])
some_metadata = st.none() | st.dictionaries(
    st.sampled_from(["n", "s"]), st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.none(), max_size=2
)
some_records = st.lists(st.tuples(some_ids, some_metadata), max_size=12)
some_filters = st.sampled_from([None, "n >= 1", "s = 'x' or n = 2", "not s is null", "n in (0, 3)"])
some_indexes = st.sampled_from(list(INDEXES))
# Small databases are searched through their index too.
SMALL = {hnsw: {"_VISITS_AT_LEAST": 0, "_CODED_VISITS_PER_EF": 0}, ivf: {"_SCANNED_AT_MOST": 0}}


class Machine(RuleBasedStateMachine):
    """One database and its model.

    Attributes:
        steps: how many steps all machines of this process have done.
        crashes: how many of them were crashes.
        observations: how often another thread has read.
    """

    steps = 0
    crashes = 0
    observations = 0

    def __init__(self) -> None:
        super().__init__()
        self._patches = [
            unittest.mock.patch.object(module, name, value)
            for module, values in SMALL.items()
            for name, value in values.items()
        ]
        for patch in self._patches:
            patch.start()
        self.work: Work = None  # type: ignore[assignment]
        self.start = EMPTY
        self.readers: list[tuple[Iqdb, State]] = []
        self.in_memory = False
        self.asked: tuple[int, int, str | None, bool] | None = None

    @initialize(
        in_memory=st.integers(0, 3).map(lambda n: n == 0),
        policy=st.sampled_from(["always", "periodic"]),
        auto=st.sampled_from([None, 3, 8]),
        cached=st.booleans(),
        index=some_indexes,
        codec=st.sampled_from(["none", "lz4", "zstd:1"]),
    )
    def begin(
        self, in_memory: bool, policy: str, auto: int | None, cached: bool, index: str, codec: str
    ) -> None:
        self.in_memory = in_memory
        self.chosen = {"index": INDEXES[index], "compression": codec}
        self.cached = cached
        self.auto = auto
        self.policy = policy
        self._new_work(EMPTY)
        self._create()

    def _new_work(self, image: Image) -> None:
        seed = 0 if self.work is None else self.work._seed
        self.start = image
        files = MemoryFiles(image)
        self.work = Work(files, PATH, self.policy, Trace() if self.in_memory else files.trace)
        self.work.auto_compact = self.auto
        self.work.cache = CacheConfig(capacity=4) if self.cached else None
        self.work._seed = seed

    def _create(self) -> None:
        if self.in_memory:
            self.work.create_in_memory(**self.chosen)
        else:
            self.work.create(**self.chosen)

    @property
    def expected(self) -> State:
        state = self.work.versions[-1]
        assert state is not None
        return state

    # --- Writes -----------------------------------------------------------------------------------

    @rule(record_id=some_ids, metadata=some_metadata)
    def upsert(self, record_id: Any, metadata: Any) -> None:
        self.work.upsert(record_id, metadata)

    @rule(records=some_records)
    def upsert_many(self, records: Any) -> None:
        self.work.upsert_many([i for i, _ in records], [metadata for _, metadata in records])

    @rule(ids=st.lists(some_ids, max_size=6))
    def delete(self, ids: Any) -> None:
        self.work.delete(*ids)

    @rule(records=some_records, cut=st.integers(0, 12))
    def bulk(self, records: Any, cut: int) -> None:
        self.work._seed += 1
        seeds = [self.work._seed + i for i in range(len(records))]
        self.work._seed += len(records)
        ids, metadata = [i for i, _ in records], [m for _, m in records]
        self.work.bulk(
            batch_of(ids[:cut], seeds[:cut], metadata[:cut]), batch_of(ids[cut:], seeds[cut:], metadata[cut:])
        )

    @rule(compression=st.sampled_from([None, "none", "lz4", "zstd:1"]))
    def compact(self, compression: str | None) -> None:
        self.work.compact(compression)

    @rule(index=st.none() | some_indexes, sample=st.sampled_from([0, 2]))
    def optimize(self, index: str | None, sample: int) -> None:
        self.work.optimize(None if index is None else INDEXES[index], sample)

    @rule(value=st.integers(1, 9))
    def tune(self, value: int) -> None:
        kind = self.work.db.config.index.kind.value
        if kind != "flat":
            self.work.tune(**{"ef" if kind == "hnsw" else "n_probes": value})

    @rule()
    def sync(self) -> None:
        if not self.in_memory and self.policy == "periodic":
            self.work.sync()

    # --- Handles and crashes ----------------------------------------------------------------------

    @precondition(lambda self: not self.in_memory)
    @rule(compact=st.booleans())
    def reopen(self, compact: bool) -> None:
        self.work.close(compact=compact)
        self.work.open()

    @precondition(lambda self: not self.in_memory)
    @rule(back=st.integers(0, 40), kill=st.booleans(), seed=st.integers(0, 2**32))
    def crash(self, back: int, kill: bool, seed: int) -> None:
        """The power goes, or the process, at one of the last operations; what is found is taken for true."""
        self._close_readers()
        trace = list(self.work.trace)
        versions = self.work.versions
        crashes = Crashes(
            trace,
            self.start,
            policy=self.policy,
            log_name=LOG,
            rng=random.Random(seed),
            floor=1 if PATH in self.start.names else 0,
        )
        position = max(0, len(trace) - back)
        states = crashes.states_at(position)
        lossless = [state for state in states if state.lossless]
        state = random.Random(seed).choice(lossless if kill else states)
        self.work.abandon()
        self._new_work(state.image)
        type(self).crashes += 1
        try:
            with Iqdb.open_existing(PATH, read_only=True, files=self.work.files) as reader:
                found = state_of(reader)
        except DatabaseNotFoundError:
            assert None in versions[state.floor : state.ceiling + 1], "the database is gone"
            self._create()
            return
        assert found in versions[state.floor : state.ceiling + 1], "the crash lost or invented something"
        self.work.versions.append(found)
        self.work.acked = 1
        self.work.open()

    @precondition(lambda self: not self.in_memory and len(self.readers) < 3)
    @rule()
    def open_a_reader(self) -> None:
        reader = Iqdb.open_existing(PATH, read_only=True, files=self.work.files, threads=1)
        self.readers.append((reader, self.expected))

    @rule()
    def refresh_the_readers(self) -> None:
        for reader, _ in self.readers:
            reader.refresh()
        self.readers = [(reader, self.expected) for reader, _ in self.readers]

    # --- Reads ------------------------------------------------------------------------------------

    @rule(record_id=some_ids)
    def get(self, record_id: Any) -> None:
        known = {i: (vector, metadata) for i, vector, metadata in self.expected.records}
        found = self.work.db.get(record_id)
        assert (record_id in self.work.db) == (record_id in known)
        if record_id not in known:
            assert found is None
        else:
            assert found is not None
            assert (found[0].tobytes(), found[1]) == known[record_id]

    @rule(at=st.integers(0, 60), k=st.sampled_from([1, 3, 100]), expression=some_filters, exact=st.booleans())
    def search(self, at: int, k: int, expression: str | None, exact: bool) -> None:
        self.asked = at, k, expression, exact
        self._search(at, k, expression, exact)

    @precondition(lambda self: self.asked is not None)
    @rule()
    def search_for_the_same_again(self) -> None:
        """What was written meanwhile is in the answer, whatever a cache may have kept."""
        assert self.asked is not None
        self._search(*self.asked)

    def _search(self, at: int, k: int, expression: str | None, exact: bool) -> None:
        condition = None if expression is None else Filter.parse(expression)
        query = np.array(vector_of(at), np.float32)
        matching = {}
        for place, (record_id, vector, metadata) in enumerate(self.expected.records):
            if condition is None or condition.matches(metadata):
                apart = np.frombuffer(vector, np.float32).astype(np.float64) - query
                matching[record_id] = (math.sqrt(float(apart @ apart)), place, metadata)
        hits = self.work.db.search(query, k, filter=expression, exact=exact)
        assert len(hits) == min(k, len(matching)), "a search found too little, or what does not match"
        assert len({hit.id for hit in hits}) == len(hits)
        for hit in hits:
            distance, _, metadata = matching[hit.id]
            assert math.isclose(hit.distance, distance, rel_tol=1e-12)
            assert hit.metadata == metadata
        order = [(hit.distance, matching[hit.id][1]) for hit in hits]
        assert order == sorted(order)
        if exact or len(hits) < k:
            nearest = sorted(matching, key=lambda i: matching[i][:2])[:k]
            assert [hit.id for hit in hits] == nearest
        again = self.work.db.search(query, k, filter=expression, exact=exact)
        assert [(hit.id, hit.distance) for hit in again] == [(hit.id, hit.distance) for hit in hits]

    @rule(
        writes=st.lists(st.tuples(some_ids, st.booleans()), min_size=1, max_size=6),
        n_readers=st.integers(1, 3),
    )
    def read_from_threads_while_writing(self, writes: Any, n_readers: int) -> None:
        """Whatever a thread reads is a state not older than the newest acknowledged before it began."""
        work, db = self.work, self.work.db
        failures: list[str] = []
        done = threading.Event()
        looked = [threading.Event() for _ in range(n_readers)]

        def read(n: int) -> None:
            while not (done.is_set() and looked[n].is_set()):
                floor = work.acked
                found = state_of(db)
                hits = {hit.id for hit in db.search(vector_of(3), 100)}
                looked[n].set()
                allowed = work.versions[floor:]
                if found not in allowed:
                    failures.append(f"read {found}\nacknowledged {allowed}")
                if hits not in [{i for i, _, _ in state.records} for state in allowed if state is not None]:
                    failures.append(f"a search found {hits}, acknowledged {allowed}")
                type(self).observations += 2

        threads = [threading.Thread(target=read, args=(n,)) for n in range(n_readers)]
        for thread in threads:
            thread.start()
        try:
            for record_id, remove in writes:
                if remove:
                    work.delete(record_id)
                else:
                    work.upsert(record_id)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failures, failures[0]

    # --- What always holds ------------------------------------------------------------------------

    @invariant()
    def shows_what_the_model_has(self) -> None:
        if self.work is None:
            return
        type(self).steps += 1
        assert state_of(self.work.db) == self.expected
        assert len(self.work.db) == len(self.expected.records)
        for reader, state in self.readers:
            assert state_of(reader) == state

    def _close_readers(self) -> None:
        for reader, _ in self.readers:
            reader.close()
        self.readers = []

    def teardown(self) -> None:
        self._close_readers()
        if self.work is not None:
            self.work.abandon()
        for patch in self._patches:
            patch.stop()


def chosen_settings(examples: int, steps: int, *, shrink: bool = True, vary: bool = True) -> settings:
    """Return the settings for so many machines of so many steps each.

    `shrink`: make failures small. `vary`: take others every time, unless a seed is chosen.
    """
    return settings(
        derandomize=not vary,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
    )
