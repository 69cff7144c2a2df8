from aemp_gevent.ports.c_calls cimport PURE, append
from aemp_gevent.ports.hub_thread cimport HubThread
from aemp_gevent.ports.port cimport Job, Receiver

cdef int QUEUED

cdef class RunQueue(HubThread):
    cdef public object runq, jobs, pump
    cdef public bint pumped

    cpdef enqueue(self, Receiver port)
    cpdef enqueue_job(self, Job job)
    cpdef deliver(self, Receiver port, message)
