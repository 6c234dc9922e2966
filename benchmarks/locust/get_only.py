"""GETs of the keys get-only-1 to get-only-100, which must be there (see benchmarks/wrk/get-only.lua).

    ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \\
      locust -f benchmarks/locust/get_only.py --headless -u 96 -r 96 -t 10s
"""

from benchmarks.locust.user import KeyUser, read_keys


class GetOnly(KeyUser):
    def steps(self) -> None:
        for key in read_keys("get-only", self.number):
            self.get(key)
