"""The memory report: why a recurrent network forgets, what a gate does about it, and where it does not help.

Small networks are trained, measured by pure functions, and drawn on one page with its numbers beside it.
"""
