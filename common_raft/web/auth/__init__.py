"""``/v2/auth``: users, roles, and who may do what, as etcd 3.5 has it for its v2 API.

``models``, ``permissions`` and ``decoding`` are pure; ``accounts`` follows what the keyspace holds, ``passwords``
hashes, ``changes`` changes, ``routes`` answers requests on ``/v2/auth``, and ``guard`` stands before all others.
"""
