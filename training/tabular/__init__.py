"""A person's own table: `python -m training table FILE --target COLUMN`."""
