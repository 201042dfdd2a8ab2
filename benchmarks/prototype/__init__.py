"""The hot path with nothing around it: no errors, metrics, logs, deadlines or lifecycle.

It says how fast two Python processes can pass requests to a handler at all, so that every benchmark run shows what
the finished server pays for the rest.
"""
