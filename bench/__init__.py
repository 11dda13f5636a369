"""Measurements on real servers, as ratios within one run. `make bench` runs all but scale.py."""
