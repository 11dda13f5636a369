"""spawnctl: the command line of operators, over the admin API of the control plane.

`main` finds the command's module in `commands`. Commands call the API (`client`), run `checks` and
print with `views`. The modules on this level serve all of them.
"""
