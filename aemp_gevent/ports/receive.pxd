from aemp_gevent.ports.port cimport Port
from aemp_gevent.ports.scheduler cimport Scheduler

cdef int DEAD, RUNNING
