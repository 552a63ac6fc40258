"""The MentorNet: loading and using one, and learning one from a curriculum."""
