"""One module per operation: its parameters, policy and what it promises."""
