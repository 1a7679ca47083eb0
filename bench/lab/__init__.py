"""What the training of tables is worth: the cost of an epoch, beside competitions, and beside other libraries."""
