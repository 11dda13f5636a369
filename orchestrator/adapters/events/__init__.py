"""Wake-ups between the processes of this machine, over sockets in a folder of the state folder.

A process that listens has a socket there, whose name says to what kinds of topics. Whoever wakes
others writes lines to the sockets that want them. No server stands between.
"""
