"""Who may do what: keys, people, and the one who stands at the door."""
