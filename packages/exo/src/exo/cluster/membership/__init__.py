"""This node among others: what it announces, whom it sees, and the secret by which they know each other."""
