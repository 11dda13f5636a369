"""The pure heart of SpawnAI: values, state machines, and the planner. No I/O, no clock, no logging.

Glossary. These words, and no others, are used in code, logs, API and documents:

Session      what a user asked for and we keep: prompt, tier, state, expiry, slug, version.
wanted       RUNNING or GONE: all that API, reaper and operator may set.
Sandbox      one container that we made on one host: one Slot, one slug, one port, one agent.
Slot         room for one sandbox on a host.
Host, Pool   a machine with Docker, local or over SSH; all of them.
Claim        the transaction that gives a warm sandbox to a session.
Bundle       the source of an app, tar.gz with a manifest: a template, a generated version.
Version      a bundle of a session: v1, v2 and so on. One that never was healthy is never started.
Change       what a user asks of an app that is there: a message to Claude, or an earlier version.
Agent        our program inside the sandbox. Its front is what listens on port 3000 there.
Gateway      our Messages API for agents. A Provider is who answers behind it.
Budget       what a session, a user's day or a day may spend; an Account is what of it is spent.
Reservation  what one call may cost at most, set aside before it is made.
Route        slug -> host:port. A RouteTable is all of them at one instant.
Observation  what is there. A Diagnosis names what differs. A Step is the next action, as data.
Nudge        "look at this session now": always safe to lose or to repeat.
Reaper       the loop that sets wanted = GONE when a session's time is up. It never touches Docker.
cordon       no new placements. drain: move or end what is there.
"""
