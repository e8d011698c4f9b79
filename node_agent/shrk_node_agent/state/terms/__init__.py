"""What an owner allows, as pure machines: each is told what is seen and when, and says what follows."""
