"""What principals of one user, and all together, may use besides what each has for itself."""

from __future__ import annotations

from orchestrator.entrypoints.api.bounds.layered_rates import LayeredRates, Layers, alone
from orchestrator.services.rates import Rate

LAYERS = Layers(
    own=Rate(per_s=10, burst=100),
    floor=Rate(per_s=1, burst=2),
    user=Rate(per_s=2, burst=20),
    total=Rate(per_s=4, burst=50),
)


class Principals:
    """Use as much as they are allowed to, one unit after the other."""

    def __init__(self, layers: Layers = LAYERS) -> None:
        self.rates = LayeredRates(layers)
        self.now_s = 100.0

    def use(self, principal: str, user: str) -> float | None:
        """Use one unit. Returns how long it has to wait for that; None: it had it."""
        delay = self.rates.delay(principal, user, self.now_s, 1)
        if delay is not None:
            return delay.wait_s
        self.rates.charge(principal, user, self.now_s, 1)
        return None

    def use_all(self, principal: str, user: str) -> int:
        """Use all that may be used now. Returns how much."""
        count = 0
        while self.use(principal, user) is None:
            count += 1
        return count


def used_up(principals: Principals, user: str, count: int) -> int:
    """What `count` principals of a user use together."""
    return sum(principals.use_all(f"{user} {number}", user) for number in range(count))


# An empty bucket admits one more: it is asked whether it is overdrawn.
FLOOR, USER, TOTAL = 3, 21, 51


def test_five_principals_of_a_user_use_no_more_than_the_user_may() -> None:
    assert used_up(Principals(), "a", 5) == USER + 5 * FLOOR


def test_all_users_together_use_no_more_than_the_total() -> None:
    principals = Principals()
    used = sum(used_up(principals, user, 2) for user in "abcd")
    assert used == TOTAL + 8 * FLOOR


def test_whoever_is_within_its_floor_is_served_however_much_others_use() -> None:
    principals = Principals()
    for user in "abcd":
        used_up(principals, user, 2)
    assert principals.use_all("a 9", "a") == FLOOR
    assert principals.use_all("e 0", "e") == FLOOR
    principals.now_s += 3
    assert principals.use("e 0", "e") is None


def test_one_principal_uses_no_more_than_its_own_and_is_told_so() -> None:
    principals = Principals(
        Layers(
            own=Rate(per_s=2, burst=5),
            floor=Rate(per_s=1, burst=1),
            user=Rate(per_s=9, burst=90),
            total=Rate(per_s=9, burst=90),
        )
    )
    assert principals.use_all("a", "u") == 5
    delay = principals.rates.delay("a", "u", principals.now_s, 1)
    assert delay is not None
    assert (delay.wait_s, delay.is_own) == (0.5, True)


def test_who_waits_is_told_when_floor_or_share_has_room_again() -> None:
    principals = Principals()
    used_up(principals, "a", 2)
    wait_s = principals.use("a 0", "a")
    assert wait_s == 0.5  # the user's bucket, overdrawn by one, gets two a second
    principals.now_s += wait_s
    assert principals.use("a 0", "a") is None


def test_principals_that_share_nothing_have_their_own_rate_each() -> None:
    principals = Principals(alone(Rate(per_s=1, burst=3)))
    assert [principals.use_all(name, "a") for name in "xyz"] == [3, 3, 3]
