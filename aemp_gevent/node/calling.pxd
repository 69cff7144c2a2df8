from aemp_gevent.ports.c_calls cimport get_ident
