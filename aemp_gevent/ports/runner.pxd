from aemp_gevent.ports.c_calls cimport greenlet

cdef class Runner(greenlet):
    cdef public object aemp_call, aemp_port, at
    cdef public bint aemp_resumed, idle, stopped
