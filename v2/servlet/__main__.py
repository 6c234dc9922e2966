"""``python -m v2.servlet``: the wiring of front, driver and store."""

from common_raft.service import main
from common_raft.service.servlet import ServletVariant, hash_map
from common_raft.web.flask_servers import FLASK_SERVERS

if __name__ == "__main__":
    main(ServletVariant("v2.servlet", FLASK_SERVERS, hash_map))
