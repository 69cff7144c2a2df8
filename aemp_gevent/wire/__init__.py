# SPDX-License-Identifier: MIT
"""The wire: bytes in, events out; packets in, bytes out.

Everything two nodes must agree on lives here, and nothing else: no socket, no
clock, no randomness of its own, no greenlet, no log. The owner of a connection
(:mod:`aemp_gevent.links.link`) feeds these objects and acts on what they say.

================================ ================================================================
module                           what it knows
================================ ================================================================
:mod:`~.wire.greeting`           the first line of a connection, as data
:mod:`~.wire.auth`               the tokens that prove knowledge of the secret
:mod:`~.wire.handshake`          which side sends what until the link is open
:mod:`~.wire.handshake_states`   the states of that, and the moves between them
:mod:`~.wire.tls`                TLS between the greetings and the rest
:mod:`~.wire.credentials`        a node's certificate and key, and the CAs that it believes
:mod:`~.wire.certified_names`    which node IDs a certificate is for
:mod:`~.wire.framing`            the table of framings, what encoders and decoders are
:mod:`~.wire.framing_msgpack`    packets as msgpack
:mod:`~.wire.framing_cbor`       packets as CBOR, if cbor2 is installed
:mod:`~.wire.cbor_scanner`       where an item of CBOR ends that is cut by a read
:mod:`~.wire.framing_json`       packets as JSON
:mod:`~.wire.decoding`           what the decoders of CBOR and JSON share
:mod:`~.wire.counting`           how many elements are in messages that come
:mod:`~.wire.values`             which values may travel, and what is wrong with others
:mod:`~.wire.limits`             how large a message and how long a name may be
:mod:`~.wire.vocabulary`         the names of all requests
================================ ================================================================

What a packet *means* (``mon1``, ``kil0``, ports, heartbeats) is not decided
here, only what its request is called. Read :mod:`~.wire.handshake` first, then :mod:`~.wire.framing`.
"""
