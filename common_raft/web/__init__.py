"""etcd v2 over HTTP: a request becomes a command or a read, its result a response; fronts only move bytes."""
