"""What operators do with kept sequences: list, end, back up, restore, have them go on with another version."""
