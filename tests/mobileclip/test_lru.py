"""The cache compared with a plain list, and used by several threads."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from mobileclip.lru import LruCache

keys = st.integers(0, 7)
calls = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 6)),
    st.tuples(st.sampled_from(["get", "contains"]), keys, st.just(0)),
    st.tuples(st.just("clear"), st.just(0), st.just(0)),
)


class Model:
    """The obvious implementation: pairs of key and value in the order of their last use, scanned on each call."""

    def __init__(self, budget: int) -> None:
        self.budget, self.pairs = budget, list[tuple[int, int]]()

    def put(self, key: int, value: int) -> None:
        self._remove(key)
        self.pairs.append((key, value))
        while sum(value for _, value in self.pairs) > self.budget and len(self.pairs) > 1:
            del self.pairs[0]

    def get(self, key: int) -> int | None:
        found = dict(self.pairs).get(key)
        if found is not None:
            self._remove(key)
            self.pairs.append((key, found))
        return found

    def _remove(self, key: int) -> None:
        self.pairs = [pair for pair in self.pairs if pair[0] != key]


@given(st.integers(0, 15), st.lists(calls, max_size=60))
def test_it_behaves_like_a_plain_list(budget: int, calls: list[tuple[str, int, int]]) -> None:
    cache, model = LruCache[int, int](budget, lambda value: value), Model(budget)
    for call, key, value in calls:
        if call == "put":
            cache.put(key, value)
            model.put(key, value)
        elif call == "get":
            assert cache.get(key) == model.get(key)
        elif call == "contains":
            assert (key in cache) == (key in dict(model.pairs))
        else:
            cache.clear()
            model.pairs.clear()
        assert len(cache) == len(model.pairs)
        assert cache.used == sum(value for _, value in model.pairs)
    for key, value in reversed(model.pairs):
        assert cache.get(key) == value


def test_without_a_cost_the_budget_counts_values() -> None:
    cache = LruCache[str, str](2)
    cache.put("a", "first")
    cache.put("b", "second")
    assert cache.get("a") == "first"
    cache.put("c", "third")
    assert "b" not in cache and cache.get("b") is None
    assert (cache.get("a"), cache.get("c"), cache.used) == ("first", "third", 2)


def test_the_last_value_stays_even_if_it_exceeds_the_budget() -> None:
    cache = LruCache[str, bytes](10, len)
    cache.put("small", b"12345")
    cache.put("large", bytes(100))
    assert cache.get("large") == bytes(100) and "small" not in cache
    cache.put("large", b"1")
    assert cache.used == 1


class SlowKey(int):
    """Hashed in Python, so that threads may switch in the middle of a call."""

    def __hash__(self) -> int:
        return int(self) % 97

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and int(self) == int(other)


def test_costs_stay_right_with_several_threads() -> None:
    cache = LruCache[int, int](500, int)
    before = sys.getswitchinterval()

    def work(thread: int) -> None:
        for i in range(3000):
            key = (i * (thread + 3)) % 97
            cache.put(SlowKey(key), key)
            cache.get(SlowKey((key + 1) % 97))

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
    held = {key for key in range(97) if SlowKey(key) in cache}
    assert cache.used == sum(held) <= 500 and len(cache) == len(held) > 0


def test_a_pickled_or_copied_cache_is_empty() -> None:
    cache = LruCache[str, int](3)
    cache.put("a", 1)
    for other in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert (len(other), other.used, other.budget) == (0, 0, 3)
    assert cache.get("a") == 1
