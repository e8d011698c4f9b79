"""How the tables came to be, step by step; `run` brings a database to the newest step."""
