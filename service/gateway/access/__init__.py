"""Who may ask what: API keys, their scopes, and which hosts and web pages are answered."""
