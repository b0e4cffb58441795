"""Cost: KV bytes by formula (`formulas`, without torch), and what the devices say of their memory (`device`)."""
