from aemp_gevent.ports.pacing cimport Pacing
from aemp_gevent.ports.port cimport Cell, Job, Port, activate
from aemp_gevent.ports.port_table cimport PortTable

cimport cython

cdef int DEAD, IDLE, RUNNING

cdef class Deaths(Pacing):
    cdef public PortTable table
    cdef public Cell blank
    cdef public object owner, _deaths, _failures

    @cython.locals(cell=Cell)
    cpdef kill(self, Port port, reason)
    cpdef doom(self, Port port)
    @cython.locals(cell=Cell, monitor=Job)
    cpdef die(self, Port port, reason)
