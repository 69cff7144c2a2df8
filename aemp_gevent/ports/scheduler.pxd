from aemp_gevent.ports.c_calls cimport PURE, Take, getrefcount, popleft, switch
from aemp_gevent.ports.giving_way cimport GivingWay
from aemp_gevent.ports.handlers cimport Handlers
from aemp_gevent.ports.port cimport Cell, Due, Job, Port, activate
from aemp_gevent.ports.runner cimport Runner

cimport cython

cdef int DEAD, IDLE, QUEUED, REMOTE, RUNNING, SLICE, FIRST_LOOK

cdef class Scheduler(GivingWay):
    cdef public object scan, default, complaints, totals, _runners
    cdef public Py_ssize_t discarded, _max_idle
    cdef public bint is_abandoned

    @cython.locals(due=Due, port=Port, cell=Cell, handlers=Handlers, room=int, step=int, left=int, references=Py_ssize_t, left_behind=dict, take=Take)
    cpdef _run(self, Runner runner)
    cpdef bint _park(self, Runner runner, target) except -1
    @cython.locals(cell=Cell)
    cpdef _run_main(self, Port port)
    cpdef _run_job(self, Runner runner, Job job)
    @cython.locals(port=Port, cell=Cell)
    cpdef _reap(self)
