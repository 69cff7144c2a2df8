from aemp_gevent.ports.scheduler cimport Scheduler
from aemp_gevent.transport.transport cimport Sink

cdef class Handshaking(Sink):
    cdef object __weakref__
    cdef public object transport, peer_nonce, up_since, why, state, second_path
    cdef public object _handshake, _make_tls, _refusals, _secure, _timer
    cdef public bint proved, is_up, closed, is_refused
    cdef public long long received, beats, _other_writes
    cdef public Scheduler _scheduler
