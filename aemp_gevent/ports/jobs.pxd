from aemp_gevent.ports.port cimport Job

cdef class CallJob(Job):
    cdef public object function, args
