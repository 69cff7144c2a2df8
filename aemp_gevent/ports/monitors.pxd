from aemp_gevent.ports.c_calls cimport get_ident
from aemp_gevent.ports.port cimport Job, Port, Receiver
from aemp_gevent.ports.scheduler cimport Scheduler

cdef int JOB

cdef class Monitor(Job):
    cdef public object _action, _monitored, _reason
    cdef public Scheduler _scheduler

    cpdef cancel(self)
    cpdef run(self)
    cpdef bint died(self, reason) except -1

cdef class KillMonitor(Monitor):
    cdef public Port _victim

    cpdef bint died(self, reason) except -1

cdef class LastAction(Job):
    cdef public object _action, _before

    cpdef run(self)

cdef class MonitoredRemote(Receiver):
    cpdef monitor(self, Job monitor)
    cpdef call(self, message, reply, left, chain, trace=*)
    cpdef unmonitored(self)

cpdef add(Receiver monitored, Job monitor)
cpdef remove(Receiver monitored, Job monitor)
