"""What is learnt from a table: its rows as inputs, the parts, the network, the tasks."""
