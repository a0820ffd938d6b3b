"""What a step will need, before it is launched: memory, FLOPs, collectives, time; from the compiler and a roofline."""
