"""From JSON shapes to what a person reads. Pure: shapes in, rich renderables out."""
