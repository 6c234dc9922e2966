"""v2.reactive: asyncio driver, HashMap; native fast path, or Starlette on granian or hypercorn."""
