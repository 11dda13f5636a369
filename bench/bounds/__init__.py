"""The attacker's runs: what one user, sandbox, host or hanging part costs all others.

`make bench-bounds` runs them one after another on a running installation. Each lasts as long as
`attacks.ALL` says, and meanwhile other users start apps at a gentle, steady pace.
"""
