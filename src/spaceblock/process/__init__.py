"""What concerns the process as a whole and knows nothing of Spaceblock: signals, forks, descriptors, later imports."""
