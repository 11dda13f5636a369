"""What users ask for, and converge, which carries it out."""
