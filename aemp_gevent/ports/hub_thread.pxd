from aemp_gevent.ports.c_calls cimport get_ident

cdef class HubThread:
    cdef object __weakref__
    cdef public unsigned long thread
    cdef public object _hub, _doorbell, _next_turn, _timers, _helpers
    cdef public bint _wraps_timers
