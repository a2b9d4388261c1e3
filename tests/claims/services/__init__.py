"""Small services as the write-ups show them. They import no package of this project: some run on an older FastAPI."""
