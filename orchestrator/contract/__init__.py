"""What the control plane and the agent must agree on. Both import it; the image gets a copy.

Only the standard library, nothing else of ours: the agent starts without site-packages.
`bundles`, `manifest` and `archive` say which apps are accepted, `wire` what both sides send each
other, `crashes` when an app is given up, `health` when it is well, `surrogates` what half of a
character means. runtime-image/CONTRACT.md describes the same for people.
"""
