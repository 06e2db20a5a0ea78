"""A simulated network in virtual time: the real connections on it, made up transfers, and what runs thousands of them.

Nothing here opens a socket or waits: :mod:`.clock` is an event loop whose time passes only when nothing is left to do,
:mod:`.network` carries datagrams as its conditions say, :mod:`.hosts` puts endpoints on it, ours and stock aioquic's.
:mod:`.scenario` says what happens in one simulation, :mod:`.seeds` makes one up from a number, :mod:`.transfers` runs
it and judges the end. The same number does the same each time. See ``docs/simulation.md``.
"""
