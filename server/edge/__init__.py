"""Where requests arrive and are translated; nothing is computed or kept here."""
