"""The Images API as OpenAI's clients speak it."""
