"""The processes of a run, on this machine: started, asked, stopped, and what they take of it."""
