from aemp_gevent.calls.call cimport CallHost
from aemp_gevent.ports.port cimport Port
from aemp_gevent.ports.scheduler cimport Scheduler

cimport cython

@cython.locals(scheduler=Scheduler, port=Port, chain=list, node=str, member=str, answered=str)
cpdef bint deliver(CallHost host, str prefix, peer, list message, Py_ssize_t max_name_bytes) except -1
