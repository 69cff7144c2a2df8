from aemp_gevent.ports cimport monitors
from aemp_gevent.ports.c_calls cimport PURE, in_front
from aemp_gevent.ports.monitors cimport MonitoredRemote
from aemp_gevent.ports.port cimport Job

cdef int REMOTE
cdef bint _are_traced

cdef class RemotePort(MonitoredRemote):
    cdef object __weakref__
    cdef public object _peer, _ports, name, loss, late
    cdef public long long asked_at
    cdef public bint has_unique_name, is_kept, is_shunned, is_spawned

    cpdef append(self, message)
    cpdef call(self, message, reply, left, chain, trace=*)
    cpdef monitor(self, Job monitor)
    cpdef unmonitored(self)
