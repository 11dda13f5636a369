"""Measurements on real servers, as ratios within one run. `make bench` runs the groups.

scale.py is a simulation, and bounds has the attacks of `make bench-bounds`.
"""
