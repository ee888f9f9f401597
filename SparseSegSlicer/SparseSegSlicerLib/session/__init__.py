"""What the user may do now, and the engine's process. No qt: any host that polls can drive it."""
