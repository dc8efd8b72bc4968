"""Config + world size -> every derived number. No torch."""
