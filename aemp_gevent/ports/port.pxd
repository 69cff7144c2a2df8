from aemp_gevent.ports.handlers cimport Handlers

cimport cython

cdef bint _are_traced

cdef class Due:
    cdef public int state

cdef class Receiver(Due):
    cdef public object id, mailbox, monitors

cdef class Job(Due):
    cdef public object context

    cpdef run(self)
    cpdef bint died(self, reason) except -1

@cython.freelist(64)
cdef class Cell:
    cdef public object scheduler, inbox, waiter, runner, dying, main
    cdef public Handlers handlers
    cdef public bint is_blank

cdef class Port(Receiver):
    cdef public Cell cell
    cdef public object default

@cython.locals(cell=Cell)
cpdef Cell blank_cell(scheduler)
@cython.locals(cell=Cell, made=Cell)
cpdef Cell activate(Port port)

cdef class ReplyPort(Port):
    cdef public object asked
