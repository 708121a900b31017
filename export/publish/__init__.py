"""`pocketclip publish`: a folder that is ready for the Hugging Face hub."""
