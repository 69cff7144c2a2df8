from aemp_gevent.ports.pacing cimport Pacing
from aemp_gevent.ports.port cimport Job, Port
from aemp_gevent.ports.port_table cimport PortTable

cimport cython

cdef int DEAD, IDLE, RUNNING

cdef class Deaths(Pacing):
    cdef public PortTable table
    cdef public object owner, _deaths, _failures

    cpdef kill(self, Port port, reason)
    cpdef _hurry(self, Port port)
    cpdef doom(self, Port port)
    @cython.locals(monitor=Job)
    cpdef die(self, Port port, reason)
