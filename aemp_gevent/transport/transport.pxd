cdef class SocketTransport:
    cdef object __weakref__
    cdef public Py_ssize_t buffered, _batch_bytes
    cdef public long long sent, sent_writes
    cdef public object _socket, _hub, _view, _sink, _batches, _sending, _receive_into, _send_some, _flush, _read, _peer_address, _reader, _writer
    cdef public list _chunks
    cdef public bint _flush_asked, _is_sending, _finishing, _closed, _is_over
