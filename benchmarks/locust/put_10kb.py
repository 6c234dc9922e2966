"""A key for each user; each repeats PUTs of 10,000 bytes.

    ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \\
      locust -f benchmarks/locust/put_10kb.py --headless -u 96 -r 96 -t 10s
"""

from benchmarks.locust.user import VALUES, KeyUser


class Put10Kb(KeyUser):
    def steps(self) -> None:
        for value in VALUES:
            self.put(f"put-10kb-{self.number}", value, size=10_000)
