"""Who a client is and what it may do: tokens, their file, and their limits. Pure: no gRPC, no asyncio, no socket."""
