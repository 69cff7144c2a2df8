from aemp_gevent.ports.c_calls cimport PURE, popleft, switch
from aemp_gevent.ports.deaths cimport Deaths
from aemp_gevent.ports.port cimport Due, Port
from aemp_gevent.ports.runner cimport Runner

cimport cython

cdef int DEAD, IDLE, QUEUED, RUNNING

cdef class GivingWay(Deaths):
    cdef public list _pool

    @cython.locals(first=Due, due=Port, runner=Runner)
    cpdef wait(self, Port port, current, Py_ssize_t scanned)
    @cython.locals(runner=Runner)
    cpdef _give_way(self)
    cpdef visit_hub(self, Port port, current)
