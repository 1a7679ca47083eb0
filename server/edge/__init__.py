"""Where requests arrive, and are only translated."""
