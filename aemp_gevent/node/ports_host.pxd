from aemp_gevent.calls.call cimport CallHost
from aemp_gevent.ports.monitors cimport MonitoredRemote
from aemp_gevent.ports.port cimport Receiver

cimport cython

cdef int REMOTE

cdef class PortsHost(CallHost):
    cdef public object _node, kil, local

    @cython.locals(remote=MonitoredRemote)
    cpdef ask(self, port, Receiver target, message, str reply, left, tuple chain)
