from aemp_gevent.ports.c_calls cimport PURE, getcurrent, popleft
from aemp_gevent.ports.port cimport Port
from aemp_gevent.ports.scheduler cimport Scheduler
from aemp_gevent.ports.runner cimport Runner

cdef int DEAD, RUNNING
