from aemp_gevent.ports.c_calls cimport PURE, get_ident, getcurrent, popleft
from aemp_gevent.ports.port cimport Cell, Port
from aemp_gevent.ports.scheduler cimport Scheduler
from aemp_gevent.ports.timer_queue cimport TimerQueue

cimport cython

cdef int DEAD, RUNNING

cdef class Deadline:
    cdef public bint expired
    cdef Port _port
    cdef double _due
    cdef TimerQueue _timers
    cdef object _timer

    cpdef start(self)
    cpdef close(self)

@cython.locals(cell=Cell, scheduler=Scheduler, scanned=Py_ssize_t, seen=list, deadline=Deadline)
cpdef receive_for(Port port, matches, timeout)
@cython.locals(cell=Cell, scheduler=Scheduler, moment=Deadline)
cdef Py_ssize_t _let_in(Port port, current) except -1
cdef _look_at(inbox, Py_ssize_t index, list seen)
@cython.locals(cell=Cell)
cdef bint _take(Port port, message, Py_ssize_t index) except -1
@cython.locals(cell=Cell)
cdef _check_holder(Port port)
@cython.locals(cell=Cell, scheduler=Scheduler)
cdef bint _serve(Port port, message, Py_ssize_t index, list seen) except -1
