"""A key for each user; each repeats PUT value=1 to PUT value=100.

    ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \\
      locust -f benchmarks/locust/put_only.py --headless -u 96 -r 96 -t 10s
"""

from benchmarks.locust.user import VALUES, KeyUser


class PutOnly(KeyUser):
    def steps(self) -> None:
        for value in VALUES:
            self.put(f"put-only-{self.number}", value)
