from aemp_gevent.ports.pacing cimport Pacing
from aemp_gevent.ports.port cimport Port

cdef int DEAD, IDLE, RUNNING

cdef class Deaths(Pacing):
    cdef public object owner, table, _deaths, _failures

    cpdef kill(self, Port port, reason)
    cpdef _hurry(self, Port port)
    cpdef doom(self, Port port)
    cpdef die(self, Port port, reason)
