"""``python -m v2.reactive``: the wiring of front, driver and store."""

from common_raft.service import main
from common_raft.service.reactive import ReactiveVariant, hash_map
from common_raft.web.servers import SERVERS

if __name__ == "__main__":
    main(ReactiveVariant("v2.reactive", SERVERS, hash_map))
