"""`python -m server doctor`: looks at all that a server needs, and says what to mend."""
