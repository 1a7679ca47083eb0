"""What asks a server: loads in closed loops, single sequences, a bystander."""
