"""Gates and states as pictures in a terminal."""
