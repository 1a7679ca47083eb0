"""Generated from proto/inference; Triton's messages, under Triton's licence."""
