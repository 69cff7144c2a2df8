from aemp_gevent.ports.run_queue cimport RunQueue

cimport cython

cdef class Pacing(RunQueue):
    cdef public int credit, _careful_looks, _pace
    cdef public double _turn_started
    cdef public bint _turn_over

    @cython.locals(now=double)
    cpdef bint turn_is_over(self) except -1
