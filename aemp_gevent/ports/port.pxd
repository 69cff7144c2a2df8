from aemp_gevent.ports.handlers cimport Handlers

cdef bint _are_traced

cdef class Due:
    cdef public int state

cdef class Receiver(Due):
    cdef public object id, mailbox, monitors

cdef class Job(Due):
    cdef public object context

    cpdef run(self)
    cpdef bint died(self, reason) except -1

cdef class Port(Receiver):
    cdef public object scheduler, default, inbox, waiter, runner, dying, main
    cdef public Handlers handlers

cdef class ReplyPort(Port):
    cdef public object asked
