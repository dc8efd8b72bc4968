"""This process: which rank it is, how ranks are started and stopped, where its log goes. No torch."""
