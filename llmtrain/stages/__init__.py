"""One function per stage: it assembles a run and reads on one screen."""
