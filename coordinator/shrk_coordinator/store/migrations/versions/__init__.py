"""One module a step, applied in the order of their revisions and never edited once released."""
