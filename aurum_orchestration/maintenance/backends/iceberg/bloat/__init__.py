"""What a table takes on storage beyond what it needs."""
