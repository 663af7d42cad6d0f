"""What a careful person would run instead, as strong as they would make it."""
