from aemp_gevent.ports.monitors cimport MonitoredRemote

cdef int REMOTE
cdef bint _are_traced

cdef class RemotePort(MonitoredRemote):
    cdef object __weakref__
    cdef public object _peer, _ports, name, loss, late
    cdef public long long asked_at
    cdef public bint has_unique_name, is_kept, is_shunned, is_spawned
