"""Token buckets and samples, by key."""

from __future__ import annotations

from orchestrator.services.rates import Rate, Rates, Samples


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    rates = Rates(Rate(per_s=2, burst=3))
    assert [rates.take("a", 10) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.take("a", 10.25) == 0.25
    assert rates.take("a", 10.5) == 0
    assert rates.take("a", 10.5) == 0.5


def test_the_wait_is_told_without_taking_anything() -> None:
    rates = Rates(Rate(per_s=2, burst=3))
    assert [rates.wait("a", 10, 3) for _ in range(2)] == [0, 0]
    assert rates.take("a", 10, 3) == 0
    assert [rates.wait("a", 10) for _ in range(2)] == [0.5, 0.5]


def test_keys_do_not_share_a_bucket() -> None:
    rates = Rates(Rate(per_s=1, burst=1))
    assert (rates.take("a", 0), rates.take("b", 0), rates.take("a", 0)) == (0, 0, 1)


def test_a_rest_gives_no_more_than_a_burst() -> None:
    rates = Rates(Rate(per_s=1, burst=2))
    assert rates.take("a", 0) == 0
    assert [rates.take("a", 1000) for _ in range(3)] == [0, 0, 1]


def test_a_clock_that_steps_back_takes_nothing() -> None:
    rates = Rates(Rate(per_s=1, burst=2))
    assert (rates.take("a", 10), rates.take("a", 5), rates.take("a", 5)) == (0, 0, 1)


def test_only_so_many_keys_are_remembered() -> None:
    rates = Rates(Rate(per_s=1, burst=1), keys_max=2)
    for key in "abc":
        assert rates.take(key, 0) == 0
    assert rates.take("c", 0) == 1, "it is remembered"
    assert rates.take("a", 0) == 0, "it is not"


def test_a_sample_says_how_many_were_left_out_before_it() -> None:
    samples = Samples(60)
    assert samples.take("a", 0) == 0
    assert [samples.take("a", second) for second in (1, 2, 59.9)] == [None] * 3
    assert samples.take("b", 3) == 0
    assert samples.take("a", 60) == 3
    assert samples.take("a", 120) == 0
