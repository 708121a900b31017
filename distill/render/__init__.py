"""Render training pictures that photo sets lack: receipts, documents, cards, screens, memes."""
