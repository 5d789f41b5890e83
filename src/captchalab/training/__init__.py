"""One function that trains a stage, resumes it bit for bit, and keeps its journal."""
