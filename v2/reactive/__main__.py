"""``python -m v2.reactive``: the wiring of front, driver and store."""

from common_raft.keyspace.hashmap import HashMapStore
from common_raft.service import Variant, main
from common_raft.web.servers import SERVERS

if __name__ == "__main__":
    main(Variant("v2.reactive", HashMapStore, SERVERS))
