"""The migration checker: looks a whole deployment over without serving it."""
