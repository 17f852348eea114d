"""The report's document in front of a person: terminal, Markdown, page and charts."""
