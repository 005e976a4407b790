"""Pictures, one a module, in one style; none knows where its numbers come from."""
