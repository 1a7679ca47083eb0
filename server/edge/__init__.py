"""Where requests arrive, are translated, and wait for their answers; nothing is computed or kept here."""
