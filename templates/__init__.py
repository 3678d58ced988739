"""Words out: text fragments and pictures; blocks are built and measured in one place."""
