"""Photos with texts, as files on a workstation's disk."""
