"""The demonstration: trains three small networks, serves them, streams through them, and draws what came back.

Knows the server and the pipeline only as commands, and the client as any stranger would.
"""
