"""Driver: what runs in the child process. It needs the standard library alone, and no other file of the package.

The parent names the two libraries, and the driver loads them, shows them models and says what they answered. See
main.py for what the two say to each other.
"""
