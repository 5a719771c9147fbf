"""What is done to frames: sizes and rates, what is known of a clip, reading and writing."""
