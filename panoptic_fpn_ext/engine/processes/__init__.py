"""The processes of a job: how they start, where they meet, and how they end together."""
