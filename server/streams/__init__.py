"""One client's sequences, without gRPC and asyncio."""
