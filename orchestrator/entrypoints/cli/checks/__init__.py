"""Checks of this machine, of hosts and of the control plane. Used by the doctor commands.

A check returns findings. Nothing here prints.
"""
