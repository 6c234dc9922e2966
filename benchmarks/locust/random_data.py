"""A key for each user; each repeats 100 x (PUT value=i, GET), then DELETE.

    ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \\
      locust -f benchmarks/locust/random_data.py --headless -u 96 -r 96 -t 10s
"""

from benchmarks.locust.user import KeyUser


class RandomData(KeyUser):
    def steps(self) -> None:
        self.mixed(f"random-data-{self.number}", own=True)
