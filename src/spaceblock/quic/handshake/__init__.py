"""aioquic, bent to Spaceblock's needs: the only place that imports it, and the only one that knows its private names.

Sans-IO: no clock, no socket, ``now`` is an argument.
"""
