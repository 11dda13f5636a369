"""spawnctl: the command line of operators, over the admin API of the control plane."""
