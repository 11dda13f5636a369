"""The exit statuses by which our processes tell the supervisor why they ended by themselves."""

from __future__ import annotations

STUCK = 70  # EX_SOFTWARE of sysexits.h
UNUSABLE = 78  # EX_CONFIG
STANDBY = 69  # EX_UNAVAILABLE
TERM_OVER = 75  # EX_TEMPFAIL

REASONS = {
    UNUSABLE: "its settings or a file in the state folder can't be used",
    STANDBY: "another control plane leads",
    STUCK: "a part of it hung",
    TERM_OVER: "its lease ran out before it could be renewed",
}
