from aemp_gevent.ports.c_calls cimport getcurrent
from aemp_gevent.ports.port cimport Port
from aemp_gevent.ports.scheduler cimport Scheduler

cdef int DEAD, RUNNING
