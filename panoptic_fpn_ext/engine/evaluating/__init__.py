"""What an evaluation measures and writes, and how it goes on where it was killed."""
