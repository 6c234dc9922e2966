"""What runs a core: the loop that gives it time, disk and network, and clients their answers.

`envelope`, `proposals` and `reads` know no clock, loop or thread: every driver shares them.
"""
