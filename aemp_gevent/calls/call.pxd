from aemp_gevent.ports.monitors cimport Monitor

cdef int JOB, REMOTE, RUNNING

cdef class Loss(Monitor):
    cdef public object _died, _reply
