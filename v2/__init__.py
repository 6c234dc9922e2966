"""Version 2: the keyspace in a HashMap, this process's own dict."""
