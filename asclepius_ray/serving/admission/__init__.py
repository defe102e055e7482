"""How much is taken in at a time: tokens that fit, time that is left."""
