"""Who in the queue competes with whom, and whom the pool has room for.

A session with a wish waits for some hosts only. It holds up nobody whom other hosts have room for.
Called by services.pool.claims, and by the store as it admits a session.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.contract import crashes
from orchestrator.domain.ids import HostId, SessionId
from orchestrator.domain.pool.host import HostKind, Wish

Room = tuple[int, bool]
"""What one kind of host has: the kind's number, and whether it is warm sandboxes or free slots."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Sessions in the queue that any of the same sandboxes would do for."""

    wish: Wish = field(default_factory=Wish)
    cold: bool = False  # they get no warm sandbox: see planner.gets_cold_sandbox
    count: int = 1

    @property
    def is_choosy(self) -> bool:
        return bool(self.wish) or self.cold


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One session in the queue."""

    id: SessionId
    due_at: datetime
    demand: Demand


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Whether a session may take a sandbox now, and where it takes what others wait for."""

    has_come: bool
    keep_warm: Collection[HostId] = ()  # leave the warm sandboxes of these hosts
    keep_free: Collection[HostId] = ()  # leave the free slots of these hosts


def gets_no_warm(crash_times: Sequence[datetime]) -> bool:
    """Whether a session whose app has crashed at these times gets no warm sandbox any more."""
    return len(crash_times) > crashes.WARM_RECOVERIES_MAX


def count_competing(kinds: Sequence[HostKind], wish: Wish, others: Iterable[Demand]) -> int:
    """How many of the others wait for hosts that a session with this wish waits for too.

    Others who wait for a part of those hosts only count as far as those have slots: no more of them
    can be served there before it.
    """
    own = _awaited(kinds, wish)
    count = 0
    for demand in others:
        hosts = _awaited(kinds, demand.wish)
        if demand.wish == wish:
            count += demand.count
        elif hosts < own:
            count += min(demand.count, sum(kinds[number].slots for number in hosts))
        elif hosts & own:
            count += demand.count
    return count


def _awaited(kinds: Sequence[HostKind], wish: Wish) -> frozenset[int]:
    """The numbers of the kinds of hosts that a session waits for: those with room, else those that
    would take it once they have room, else those that may come back."""
    suitable = [number for number, kind in enumerate(kinds) if kind.meets(wish)]
    usable = [number for number in suitable if kinds[number].accepts_claims]
    roomy = [number for number in usable if kinds[number].free or kinds[number].warm]
    return frozenset(roomy or usable or suitable)


class Allotment:
    """Rooms are given to sessions in the order of the queue.

    Each session gets one of the rooms that suit it, so that as many as possible get one. A session
    that got a room never loses it to a later one, but another room may take its place. These are
    augmenting paths in a bipartite graph, as in the Hungarian method.
    """

    def __init__(self, kinds: Sequence[HostKind]) -> None:
        self._kinds = kinds
        self._left: dict[Room, int] = {}
        for number, kind in enumerate(kinds):
            if kind.accepts_claims:
                self._left |= {(number, True): kind.warm, (number, False): kind.free}
        self._suitable: dict[tuple[str, bool], frozenset[Room]] = {}
        # How many rooms have gone to each group of sessions that the same rooms suit.
        self._taken: dict[frozenset[Room], dict[Room, int]] = {}
        self._full: set[frozenset[Room]] = set()  # groups that get nothing more

    def take(self, demand: Demand) -> int:
        """Give rooms to these sessions. Returns how many of them got one."""
        group = self._rooms_for(demand)
        missing = demand.count
        while missing and group not in self._full:
            path = self._find_path(group)
            if path is None:
                self._full.add(group)
            else:
                missing -= self._shift(path, missing)
        return demand.count - missing

    def turn_of(self, demand: Demand) -> Turn:
        """Whether one more session gets a room, and which rooms nobody else could do without."""
        group = self._rooms_for(demand)
        spare = self._spare_rooms()
        scarce = [room for room in group - spare if self._size(room)]
        return Turn(
            has_come=bool(group & spare),
            keep_warm=self._hosts_of(number for number, is_warm in scarce if is_warm),
            keep_free=self._hosts_of(number for number, is_warm in scarce if not is_warm),
        )

    def _rooms_for(self, demand: Demand) -> frozenset[Room]:
        key = (_text_of(demand.wish), demand.cold)
        if key not in self._suitable:
            self._suitable[key] = frozenset(
                room
                for room in self._left
                if self._kinds[room[0]].meets(demand.wish) and not (room[1] and demand.cold)
            )
        return self._suitable[key]

    def _find_path(self, start: frozenset[Room]) -> list[tuple[frozenset[Room], Room]] | None:
        """Groups, each with the room that it takes over from the next one. The last room is free.
        The shortest path; None if there is none."""
        reached: dict[frozenset[Room], list[tuple[frozenset[Room], Room]]] = {start: []}
        seen: set[Room] = set()
        for group in (order := [start]):
            for room in sorted(group - seen, reverse=True):
                seen.add(room)
                path = [*reached[group], (group, room)]
                if self._left[room]:
                    return path
                for holder, rooms in self._taken.items():
                    if holder not in reached and rooms.get(room):
                        reached[holder] = path
                        order.append(holder)
        return None

    def _shift(self, path: list[tuple[frozenset[Room], Room]], most: int) -> int:
        """Let each group of the path take over the room beside it. Returns how many rooms."""
        handed_over = [
            self._taken[holder][room] for (_, room), (holder, _) in itertools.pairwise(path)
        ]
        count = min([most, self._left[path[-1][1]], *handed_over])
        for (group, room), (holder, _) in itertools.pairwise(path):
            self._add(group, room, count)
            self._add(holder, room, -count)
        self._add(*path[-1], count)
        self._left[path[-1][1]] -= count
        return count

    def _add(self, group: frozenset[Room], room: Room, count: int) -> None:
        rooms = self._taken.setdefault(group, {})
        rooms[room] = rooms.get(room, 0) + count

    def _spare_rooms(self) -> frozenset[Room]:
        """The rooms that can go to one more session, while all others get as many as before."""
        spare = {room for room, left in self._left.items() if left}
        groups = dict(self._taken)
        is_growing = True
        while is_growing:
            movable = [group for group in groups if group & spare]
            for group in movable:
                spare |= {room for room, count in groups.pop(group).items() if count}
            is_growing = bool(movable)
        return frozenset(spare)

    def _size(self, room: Room) -> int:
        number, is_warm = room
        return self._kinds[number].warm if is_warm else self._kinds[number].free

    def _hosts_of(self, numbers: Iterable[int]) -> Collection[HostId]:
        return [host_id for number in numbers for host_id in self._kinds[number].host_ids]


def served(kinds: Sequence[HostKind], demands: Iterable[Demand]) -> int:
    """How many of these sessions the pool has room for now."""
    allotment = Allotment(kinds)
    return sum(allotment.take(demand) for demand in demands)


def grouped(demands: Iterable[Demand]) -> Sequence[Demand]:
    """The same sessions, with one demand for all that ask for the same."""
    groups: dict[tuple[str, bool], Demand] = {}
    for demand in demands:
        key = (_text_of(demand.wish), demand.cold)
        count = demand.count + (groups[key].count if key in groups else 0)
        groups[key] = Demand(wish=demand.wish, cold=demand.cold, count=count)
    return list(groups.values())


def _text_of(wish: Wish) -> str:
    labels: Mapping[str, str] = wish.labels
    return repr((wish.region, sorted(labels.items())))
