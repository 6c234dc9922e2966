"""GETs with quorum=true of the keys get-quorum-1 to get-quorum-100, which must be there.

    ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \\
      locust -f benchmarks/locust/get_quorum.py --headless -u 96 -r 96 -t 10s
"""

from benchmarks.locust.user import KeyUser, read_keys


class GetQuorum(KeyUser):
    def steps(self) -> None:
        for key in read_keys("get-quorum", self.number):
            self.get(key, query="?quorum=true")
