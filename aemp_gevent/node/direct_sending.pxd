from aemp_gevent.ports.scheduler cimport Scheduler

cdef class DirectSending:
    cdef public Scheduler _scheduler
    cdef public dict _direct
