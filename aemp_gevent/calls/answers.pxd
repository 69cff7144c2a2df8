from aemp_gevent.ports cimport monitors
from aemp_gevent.ports.c_calls cimport getcurrent
from aemp_gevent.ports.monitors cimport KillMonitor
from aemp_gevent.ports.port cimport Port, ReplyPort
from aemp_gevent.ports.scheduler cimport Scheduler

cimport cython

cdef int RUNNING

cdef class AskingHost:
    cdef public Scheduler scheduler
    cdef public object find, make, monitor, own_end, snd, split_or_drop, split_port

@cython.locals(me=Port, scheduler=Scheduler, reply=ReplyPort, guards=list, is_runner=bint, is_taken=bint)
cpdef receive_answer(AskingHost host, call, timeout, ask, tuple args, asked, not_taken=*)
cpdef cancel_all(list guards)
