"""What is kept of each event beside the journal: embeddings, and its sound where that is wanted."""
