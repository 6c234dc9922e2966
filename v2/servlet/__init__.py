"""v2.servlet: threads, HashMap; Flask on hypercorn or granian."""
