from aemp_gevent.ports.port cimport Job

cdef class CallJob(Job):
    cdef public object function, args

    cpdef run(self)
    cpdef bint died(self, reason) except -1
