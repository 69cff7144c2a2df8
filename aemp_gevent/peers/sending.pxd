from aemp_gevent.calls cimport header
from aemp_gevent.links.flow_control cimport Room
from aemp_gevent.peers.remote_ports cimport RemotePorts
from aemp_gevent.ports.c_calls cimport get_ident

cdef class SendingPeer:
    cdef public object node, link, outbox, complaints, _log, _host, _limits, _handover, _handed
    cdef public unsigned long _thread
    cdef public RemotePorts ports
    cdef public Room room
    cdef public dict riders
    cdef public bint reads_short_calls, reads_traces
    cdef public object high_water, _paused_bytes

    cpdef post(self, packet)
    cpdef post_call(self, name, message, reply, left, chain, trace=*)
    cpdef answer(self, port, answer)
