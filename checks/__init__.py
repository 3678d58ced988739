"""What a mesh is and what can be wrong with it: pure, no I/O, no clock."""
