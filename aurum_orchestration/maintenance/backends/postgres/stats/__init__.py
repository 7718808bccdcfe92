"""Statistics of the planner collected anew where they are stale, and the report on tables, indexes and cache."""
