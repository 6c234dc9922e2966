"""Version 3: a reactive service on a blocking store: version 1's ORM, through a pool of threads."""
