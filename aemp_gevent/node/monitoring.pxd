from aemp_gevent.node.sending cimport Sending
from aemp_gevent.ports.c_calls cimport getcurrent, get_ident
from aemp_gevent.ports.callbacks cimport check_callable
from aemp_gevent.ports.monitors cimport Monitor

cdef int REMOTE

cdef class Monitoring(Sending):
    pass
