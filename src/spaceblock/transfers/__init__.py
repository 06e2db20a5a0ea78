"""A transfer on either side, over the streams of a connection.

``transfer`` is what its user holds. ``outgoing`` and ``incoming`` run the two state machines of ``protocol``, and bring
together the streams of ``quic`` and the files and buffers of ``storage``. The rest is one concern of theirs each.
"""
