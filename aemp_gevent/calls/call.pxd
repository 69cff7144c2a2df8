from aemp_gevent.calls cimport answers
from aemp_gevent.calls.answers cimport AskingHost
from aemp_gevent.calls.serve cimport call_being_served, time_left
from aemp_gevent.ports cimport monitors
from aemp_gevent.ports.c_calls cimport getcurrent
from aemp_gevent.ports.monitors cimport Monitor, MonitoredRemote
from aemp_gevent.ports.port cimport Port, Receiver, ReplyPort

cimport cython

cdef int JOB, REMOTE, RUNNING

cdef class CallHost(AskingHost):
    cdef public dict waiting
    cdef public tuple watches
    cdef public object blocked, reach

    cpdef ask(self, port, Receiver target, message, str reply, left, tuple chain)

cdef class Loss(Monitor):
    cdef public object _died, _reply

@cython.locals(holder=Port)
cpdef call(CallHost host, port, tuple message, timeout)
@cython.locals(target=Receiver, guard=Monitor)
cpdef _ask(ReplyPort reply, CallHost host, port, name, tuple message, timeout, Port holder, list died)
@cython.locals(monitor=Loss, remote=MonitoredRemote)
cpdef _monitor(CallHost host, port, Receiver target, Port reply, list died)
cpdef value_of(answer)
@cython.locals(port=Port)
cpdef _blocked_port()
cpdef tuple _chain(CallHost host, Port holder)
