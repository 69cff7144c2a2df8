from aemp_gevent.ports.c_calls cimport PURE, get_ident, getcurrent, popleft
from aemp_gevent.ports.port cimport Cell, Port
from aemp_gevent.ports.scheduler cimport Scheduler
from aemp_gevent.ports.runner cimport Runner
from aemp_gevent.ports.timer_queue cimport TimerQueue

cdef int DEAD, RUNNING

cdef class Deadline:
    cdef public bint expired
    cdef Port _port
    cdef double _due
    cdef TimerQueue _timers
    cdef object _timer

    cpdef start(self)
    cpdef close(self)

