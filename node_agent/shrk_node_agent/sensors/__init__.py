"""What the agent sees of its GPUs, and the two things it may ask of them: less power, a lower target temperature."""
