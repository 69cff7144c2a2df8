from aemp_gevent.ports.port cimport Job, Receiver

cdef int JOB

cdef class Monitor(Job):
    cdef public object _action, _monitored, _reason, _scheduler

cdef class KillMonitor(Monitor):
    cdef public object _victim

cdef class LastAction(Job):
    cdef public object _action, _before

cdef class MonitoredRemote(Receiver):
    pass
