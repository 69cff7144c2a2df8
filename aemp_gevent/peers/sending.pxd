from aemp_gevent.links.flow_control cimport Room
from aemp_gevent.ports.c_calls cimport get_ident

cdef class SendingPeer:
    cdef public object node, link, ports, outbox, complaints, _log, _host, _limits, _handover, _handed
    cdef public unsigned long _thread
    cdef public Room room
    cdef public dict riders
    cdef public bint reads_short_calls, reads_traces
    cdef public object high_water, _paused_bytes
