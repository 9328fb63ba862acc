"""What happens from one iteration to the next, and what a training does when something goes wrong."""
