"""What this project has."""
