from aemp_gevent.ports.c_calls cimport append
from aemp_gevent.ports.port cimport Receiver
from aemp_gevent.ports.scheduler cimport Scheduler

cdef int QUEUED

cdef class DirectSending:
    cdef public Scheduler _scheduler
    cdef public dict _direct
