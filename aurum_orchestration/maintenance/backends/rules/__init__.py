"""Rule groups carried out: what cleanup, logs and sessions do, whatever the SQL family."""
